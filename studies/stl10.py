"""STL-10: photos of 10 classes, 5,000 to train with and 8,000 for the test (report E).

    hpsearch data preview stl10 --with root=data/stl10 --download -n 4
    hpsearch search studies/stl10.py --download

Data: torchvision's, of 96x96 pixels; --download fetches 2.6 GB, or put stl10_binary/ into
data/stl10/. The official test part stays sealed; 20 % of the others are for validation.
Cost: not measured. The longest trials have 5e15 operations: minutes each on a GPU, hours for the
search; on a CPU, days. --dry-run estimates it for your machine.
The report in test: logistic 0.302, fully connected 0.351, CNN 0.705, MobileNetV2 fixed 0.732 and
trained 0.834. For the same table, export logistic-0, mlp-0 (mlp-1 and mlp-2 are deeper), cnn-0,
mobilenet-0 (trained) and mobilenet-1 (fixed); for a better one, the best of each family:

    hpsearch report stl10
    hpsearch export stl10 --trial mlp-0

One factor at a time, a curve for each value:

    hpsearch ablate stl10 --around cnn-0 --values lr=1e-2,1e-3,1e-4,1e-5 --vary optimizer \
        --values batch_size=8,32,128,512 --values dropout=0,0.1,0.2,0.3,0.4,0.5 \
        --values jitter=0 --values hflip=0 --values rotate=0,10
    hpsearch ablate stl10 --around mlp-0 --name stl10-layers --values preset=stl-fc5,stl-fc7
    hpsearch ablate stl10 --around mobilenet-0 --name stl10-frozen --values freeze_depth=5
"""

from hpsearch import DataSpec, Range, StudySpec

AUGMENT = {"jitter": 0.2, "hflip": 0.5, "rotate": 20, "translate": 0, "scale": 0, "resized_crop": 0}
NAMES = {"optimizer": "adam", "mlp.preset": "stl-fc3", "cnn.preset": "stl4"}
HEAD: dict[str, str | int] = {"mobilenet.head": "512/256", "mobilenet.image_size": 64}

study = StudySpec(
    name="stl10",
    data=DataSpec(source="stl10", options={"root": "data/stl10"}),
    families=("logistic", "mlp", "cnn", "mobilenet"),
    trials=80,
    overrides={
        "optimizer": ("sgd", "adam", "adamw"),
        "lr": Range(1e-5, 1e-1),
        "batch_size": (8, 16, 32, 64, 128, 256, 512),
        "dropout": Range(0, 0.5),
        "jitter": "search",
        "hflip": "search",
        "rotate": Range(0, 20),
        "logistic.image_size": 64,
        "mlp.image_size": 64,
        "mlp.preset": ("", "stl-fc3", "stl-fc5", "stl-fc7"),
        "cnn.image_size": (64, 96),
        "cnn.preset": ("", "stl4"),
        "mobilenet.weights": "imagenet",
        "mobilenet.version": "v2",
        "mobilenet.head": ([], [512, 256]),
        "mobilenet.image_size": (64, 96, 224),
    },
    first=(
        {**AUGMENT, **NAMES, **HEAD, "cnn.image_size": 64, "dropout": 0.2, "weight_decay": 1e-6},
        {**HEAD, "mobilenet.freeze_depth": 5, "mlp.preset": "stl-fc5"},
        {"mlp.preset": "stl-fc7"},
    ),
)
