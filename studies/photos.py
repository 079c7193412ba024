"""Photos of two classes, such as cats and dogs, at 444x444 (report C).

    hpsearch search studies/photos.py

Data: the training images of Kaggle's "Dogs vs. Cats", 25,000 photos of up to 500 pixels a side, as
data/photos/train/cat.0.jpg. They are decoded once, stretched to the square, into 15 GB.
Cost: not measured. The longest trials have 7e16 operations: half an hour or more on a GPU, a day
for the search. On a CPU it takes weeks. --dry-run estimates it for your machine.
The report gives no accuracies, but what hurt: batches too large for the memory, sizes of layers
computed by hand, networks too deep for the images, more epochs with better validation and worse
test. Here batches go through in parts, sizes are computed, networks that are too deep are left
out, and the test images stay sealed.

One factor at a time around the report's ConvNet and ResNet101; and is test like training?

    hpsearch ablate photos --around cnn-0 --values blocks=3,4,5,6,7 --values normalise=none \
        --values fc=500/100,100 --values fc_activation=relu --values lr=1e-3,1e-5
    hpsearch ablate photos --around cnn-0 --name photos-batch --values batch_size=16,32,64,200
    hpsearch ablate photos --around cnn-0 --name photos-epochs --values epochs=3,20
    hpsearch ablate photos --around resnet-0 --name photos-resnet --values normalise=none \
        --values pool=avg --values freeze_depth=0,3,4
    hpsearch data check data/photos/train --size 444 --fit stretch
"""

from hpsearch import DataSpec, Range, StudySpec

OFF = ("rotate", "translate", "scale", "resized_crop", "jitter", "hflip", "dropout", "warmup")
ADAM: dict[str, str | float] = {"optimizer": "adam", "lr": 1e-4, "weight_decay": 1e-6}
SIZES = {"batch_size": 100, "blocks": 6, "convs": 1, "channels": 8, "kernel": 5}
NAMES = {"schedule": "constant", "padding": "none", "view": "flat", "fc_activation": "none"}
RESNET: dict[str, str | int] = {"resnet.pool": "flat", "resnet.freeze_depth": 5}

study = StudySpec(
    name="photos",
    data=DataSpec(source="data/photos/train", size=(444, 444), fit="stretch"),
    families=("cnn", "resnet"),
    trials=40,
    epochs=10,
    overrides={
        "optimizer": ("adam", "adamw", "sgd"),
        "lr": Range(1e-5, 1e-2),
        "lr_per": (0, 100),  # 100: the smaller the batch, the smaller the rate
        "batch_size": (16, 32, 64, 100),
        "schedule": ("cosine", "constant"),
        "normalise": ("auto", "none"),
        "hflip": "search",
        "cnn.image_size": (224, 444),
        "cnn.blocks": Range(3, 6),
        "cnn.channels": (8, 16, 32),
        "cnn.kernel": (3, 5),
        "cnn.padding": ("same", "none"),
        "cnn.view": ("auto", "flat"),
        "cnn.fc": ([], [500, 100], [1000, 500, 100]),
        "cnn.fc_activation": ("relu", "none"),
        "resnet.weights": "imagenet",
        "resnet.depth": 101,
        "resnet.pool": ("avg", "flat"),
    },
    first=({**dict.fromkeys(OFF, 0), **ADAM, **SIZES, **NAMES, **RESNET, "fc": [1000, 500, 100]},),
)
