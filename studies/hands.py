"""Hands: gender, and dorsal or palmar side of a left or right hand: 8 classes (report A).

    hpsearch search studies/hands.py
    hpsearch search studies/hands.py --ignore-groups --name hands-random

The first keeps each person on one side of the split. The second, as the report, does not: networks
know people by skin and nails again, and score higher than they would on the hands of strangers.

Data: "11k Hands" (Afifi): 11,076 photos of 1600x1200, of 190 people. HandInfo.csv goes to
data/hands/, the photos to data/hands/Hands/. They are decoded once, into 2 GB at 256x256.
Cost: not measured. A resnet trial has up to 4e15 operations, minutes on a GPU, the largest cnn at
256x256 6e16, half an hour. On a CPU it takes weeks. --dry-run estimates it for your machine.
The report, its split random: hands6 at 32x32 99.4 % in validation, 99.32 % in test; ResNet18 with
its last stage and head trained 99.5 % and 99.50 %. An export has the accuracy of gender alone, too.

One factor at a time; freezing and ladder; schedules by epoch; whole photos (64 GB), from scratch:

    hpsearch ablate hands --around cnn-0 --vary optimizer,loss --values image_size=32,256 \
        --values batch_size=16,64,128 --values lr=1e-1,1e-2,1e-3,1e-4 --values momentum=0,0.5,0.9 \
        --values weight_decay=0,1e-4,1e-2 --values dropout=0,0.2,0.5 --values preset=hands6,hands15
    hpsearch ablate hands --around resnet-0 --name hands-freeze --epochs 24 \
        --values freeze_depth=3,4,5 --values head=500/64 --values lr_ladder=5e-4/1e-5/5e-6/1e-7
    hpsearch ablate hands --around cnn-0 --name hands-long --epochs 300 \
        --values dropout_rates=0.1,0.5/0.6 --values lr_step_size=30,100,200
    hpsearch search studies/hands.py --name hands-whole --family resnet --no-first --epochs 30 \
        --size 1200x1600 --set weights=none --set image_size=0 --set batch_size=16
"""

from hpsearch import DataSpec, Range, StudySpec

LABELS = {"images": "data/hands/Hands", "label": "gender,aspectOfHand", "group": "id"}
OFF = ("rotate", "translate", "scale", "resized_crop", "jitter", "label_smoothing", "warmup")
BEST = {"optimizer": "sgd", "schedule": "step", "cnn.preset": "hands6"}

study = StudySpec(
    name="hands",
    data=DataSpec(source="data/hands/HandInfo.csv", size=(256, 256), fit="stretch", options=LABELS),
    families=("cnn", "resnet"),
    trials=80,
    overrides={
        "hflip": 0,  # a mirrored left hand is a right one
        "optimizer": ("sgd", "adam", "adamw"),
        "lr": Range(1e-5, 1e-1),
        "lr_step_size": (0, 10, 30),
        "lr_ladder": ([], [5e-4, 1e-5, 5e-6, 1e-7]),
        "loss": ("cross_entropy", "mse"),
        "dropout_schedule": ("constant", "late", "adaptive"),
        "dropout_rates": ([], [0.1], [0.5, 0.6]),
        "cnn.preset": ("", "hands6", "hands15"),
        "cnn.image_size": (32, 64, 128, 256),
        "resnet.weights": "imagenet",
        "resnet.depth": 18,
        "resnet.head": ([], [500, 64]),
        "resnet.image_size": (128, 224),
    },
    first=({**dict.fromkeys(OFF, 0), **BEST, "cnn.image_size": 32, "resnet.freeze_depth": 4},),
)
