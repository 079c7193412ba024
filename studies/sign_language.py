"""Letters of sign language: 9 classes of photos of 224x224 (report D).

    hpsearch check studies/sign_language.py
    hpsearch search studies/sign_language.py
    hpsearch search studies/sign_language.py --set train_images=20 --set repeat=20 --name signs-20

The check has each network learn two images of each letter by heart, as the report did first with
20. The last is what the report did with these: an epoch shows each 20 times, augmented anew.

Data: the report's photos were a course's own. Put yours into data/sign_language/A/ to I/.
Cost: not measured. AlexNet takes 4e9 operations an image and epoch: with a few thousand images an
hour or so for the search on a GPU. The MLP of 5000 units at 224x224 has 755 million weights, which
is 12 GB with Adam; --set mlp.image_size=64 makes it a twelfth.
The report in validation: MLP 37 %, tanh ahead of ReLU; AlexNet, its last layer trained, 72.88 %.

One factor at a time, around the MLP with dropout of 0.5, the augmented one with 0.9, 0.6 and 0.3 by
depth, and AlexNet:

    hpsearch ablate sign_language --around mlp-0 --values activation=relu --values widths=5000/500 \
        --values weight_decay=0.01,0.1,0.5 --values momentum=0,0.5 --values input_dropout=no \
        --values train_images=20,100 --values repeat=20
    hpsearch ablate sign_language --around mlp-1 --name signs-augment --values rotate=0,20 \
        --values hflip=0 --values blur=0 --values weight_decay=0,0.1,0.5
    hpsearch ablate sign_language --around alexnet-0 --name signs-freeze --values freeze_depth=0,5
"""

from hpsearch import DataSpec, Range, StudySpec

OFF = ("rotate", "translate", "hflip", "blur", "resized_crop", "jitter", "label_smoothing")
TANH = {"mlp.activation": "tanh", "mlp.widths": "500/50", "mlp.batch_norm": "no"}
MLP = {**TANH, "mlp.optimizer": "sgd", "mlp.input_dropout": "yes"}
AUGMENTED = {"mlp.rotate": 25, "mlp.hflip": 0.5, "mlp.blur": 0.8, "mlp.translate": 0}
FALLING = {**AUGMENTED, "mlp.dropout": 0.9, "mlp.weight_decay": 0.01, "mlp.lr": 0.01}

study = StudySpec(
    name="sign_language",
    data=DataSpec(source="data/sign_language", size=(224, 224)),
    families=("mlp", "alexnet"),
    checkpoint_every=5,
    trials=60,
    overrides={
        "hflip": "search",
        "blur": "search",
        "weight_decay": Range(1e-6, 0.5),
        "mlp.image_size": (64, 224),
        "mlp.widths": ([500, 50], [5000, 500]),
        "mlp.activation": ("tanh", "relu"),
        "mlp.input_dropout": "search",
        "mlp.dropout": Range(0, 0.9),
        "mlp.dropout_depth": ("flat", "falling"),
        "alexnet.weights": "imagenet",
    },
    first=(
        dict.fromkeys(OFF, 0)
        | MLP
        | {"mlp.dropout": 0.5, "mlp.lr": 0.01, "alexnet.freeze_depth": 7},
        {**MLP, **FALLING, "mlp.dropout_depth": "falling"},
    ),
)
