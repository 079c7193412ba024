"""The data sets of torchvision for image classification, by name: a table, one row each.

To add one, append a row to `ZOO`: which class it is, what its constructor takes for each part of
the official split, how labels and pictures are had without decoding (a function of
`_zoo_listings`), and which files it needs. The options, help and errors follow from the table.
"""

from __future__ import annotations

from typing import Any

from hpsearch.data.sources import _zoo_listings as has
from hpsearch.data.sources._source import DataSource, SourceOption
from hpsearch.data.sources._zoo import ZooSet

_FLAGS = (("train", {"train": True}), ("test", {"train": False}))
_TWO = (("train", {"split": "train"}), ("test", {"split": "test"}))
_THREE = (("train", {"split": "train"}), ("val", {"split": "val"}), ("test", {"split": "test"}))
# They have no test part with labels: everybody tests on the validation part.
_VAL_IS_TEST = (("train", {"split": "train"}), ("test", {"split": "val"}))
_VAL_NOTE = "its val part is taken as the test part, as it is in publications"
_WHOLE: tuple[tuple[None, dict[str, Any]], ...] = ((None, {}),)

_DIGITS = tuple("0123456789")
_STL10_CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
)  # fmt: skip
_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_SIGNS = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70",
    "speed limit 80", "end of speed limit 80", "speed limit 100", "speed limit 120", "no passing",
    "no passing of trucks", "right of way at the next intersection", "priority road", "yield",
    "stop", "no vehicles", "no trucks", "no entry", "general caution", "curve to the left",
    "curve to the right", "double curve", "bumpy road", "slippery road", "road narrows",
    "road work", "traffic signals", "pedestrians", "children", "bicycles", "ice or snow",
    "wild animals", "end of all limits", "turn right", "turn left", "ahead only",
    "straight or right", "straight or left", "keep right", "keep left", "roundabout",
    "end of no passing", "end of no passing of trucks",
)  # fmt: skip


def _mnist_files(cls: str) -> tuple[str, ...]:
    """The files of MNIST and of what has taken over its format."""
    return tuple(
        f"{cls}/raw/{part}-{kind}"
        for part in ("train", "t10k")
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )


def _without_unlabeled(cls: Any) -> Any:
    """STL10 that does not ask for, and hash, the 2.7 GB of images that have no label."""
    return type(cls.__name__, (cls,), {"train_list": cls.train_list[:2]})


ZOO: tuple[ZooSet, ...] = (
    ZooSet(
        cls="CIFAR10",
        images=60_000,
        what="photos, 32x32, 10 classes",
        parts=_FLAGS,
        listing=has.arrays(axes="NHWC"),
        needs=("cifar-10-batches-py/",),
        origin="cifar-10-python.tar.gz, https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    ZooSet(
        cls="CIFAR100",
        images=60_000,
        what="photos, 32x32, 100 classes",
        parts=_FLAGS,
        listing=has.arrays(axes="NHWC"),
        needs=("cifar-100-python/",),
        origin="cifar-100-python.tar.gz, https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    ZooSet(
        cls="STL10",
        images=13_000,
        what="photos, 96x96, 10 classes",
        parts=_TWO,
        listing=has.arrays("labels", axes="NCHW"),
        classes=_STL10_CLASSES,
        needs=tuple(
            f"stl10_binary/{part}_{kind}.bin" for part in ("train", "test") for kind in "Xy"
        ),
        origin="stl10_binary.tar.gz, https://cs.stanford.edu/~acoates/stl10",
        adapt=_without_unlabeled,
    ),
    ZooSet(
        cls="SVHN",
        images=99_289,
        what="photos of house numbers, 32x32, 10 digits",
        parts=_TWO,
        listing=has.arrays("labels", axes="NCHW"),
        classes=_DIGITS,
        needs=("train_32x32.mat", "test_32x32.mat"),
        origin="http://ufldl.stanford.edu/housenumbers",
    ),
    ZooSet(
        cls="MNIST",
        images=70_000,
        what="handwritten digits, 28x28 gray, 10 classes",
        parts=_FLAGS,
        listing=has.arrays(),
        classes=_DIGITS,
        needs=_mnist_files("MNIST"),
        origin="https://ossci-datasets.s3.amazonaws.com/mnist, unpacked",
    ),
    ZooSet(
        cls="FashionMNIST",
        images=70_000,
        what="pieces of clothing, 28x28 gray, 10 classes",
        parts=_FLAGS,
        listing=has.arrays(),
        needs=_mnist_files("FashionMNIST"),
        origin="https://github.com/zalandoresearch/fashion-mnist, unpacked",
    ),
    ZooSet(
        cls="KMNIST",
        images=70_000,
        what="handwritten Japanese syllables, 28x28 gray, 10 classes",
        parts=_FLAGS,
        listing=has.arrays(),
        needs=_mnist_files("KMNIST"),
        origin="http://codh.rois.ac.jp/kmnist, unpacked",
    ),
    ZooSet(
        cls="QMNIST",
        images=120_000,
        what="handwritten digits, 28x28 gray, 10 classes, grouped by writer",
        parts=_FLAGS,
        listing=has.qmnist,
        classes=_DIGITS,
        needs=tuple(
            f"QMNIST/raw/qmnist-{part}-{kind}"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx2-int")
        ),
        origin="https://github.com/facebookresearch/qmnist, unpacked",
    ),
    ZooSet(
        cls="EMNIST",
        images=131_600,
        what="handwritten letters and digits, 28x28 gray, 47 classes",
        parts=_FLAGS,
        listing=has.emnist,
        needs=tuple(
            f"EMNIST/raw/emnist-{{split}}-{part}-{kind}"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        ),
        origin="gzip.zip, https://www.nist.gov/itl/products-and-services/emnist-dataset, unpacked",
        options=(
            SourceOption(
                name="split",
                help="which of its selections of images and classes",
                choices=("byclass", "bymerge", "balanced", "letters", "digits", "mnist"),
                default="balanced",
            ),
        ),
    ),
    ZooSet(
        cls="USPS",
        images=9_298,
        what="handwritten digits, 16x16 gray, 10 classes",
        parts=_FLAGS,
        listing=has.arrays(),
        classes=_DIGITS,
        needs=("usps.bz2", "usps.t.bz2"),
        origin="https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html",
    ),
    ZooSet(
        cls="SEMEION",
        images=1_593,
        what="handwritten digits, 16x16 black and white, 10 classes",
        parts=_WHOLE,
        listing=has.arrays("labels"),
        classes=_DIGITS,
        needs=("semeion.data",),
        origin="https://archive.ics.uci.edu/dataset/178",
    ),
    ZooSet(
        cls="Omniglot",
        images=32_460,
        what="handwritten characters, 105x105 black and white, 1,623 classes",
        # Its two parts have no class in common: they are for learning to learn.
        parts=((None, {"background": True}), (None, {"background": False})),
        listing=has.omniglot,
        needs=tuple(
            f"omniglot-py/images_{part}{kind}"
            for part in ("background", "evaluation")
            for kind in ("/", ".zip")
        ),
        origin="https://github.com/brendenlake/omniglot/tree/master/python",
    ),
    ZooSet(
        cls="FER2013",
        images=35_887,
        what="faces, 48x48 gray, 7 emotions",
        parts=_TWO,
        listing=has.fer2013,
        classes=_EMOTIONS,
        needs=("fer2013/fer2013.csv",),
        origin="https://www.kaggle.com/c/"
        "challenges-in-representation-learning-facial-expression-recognition-challenge",
        downloads=False,
    ),
    ZooSet(
        cls="PCAM",
        images=327_680,
        what="scans of lymph nodes, 96x96, 2 classes",
        parts=_THREE,
        listing=has.pcam,
        classes=("normal", "tumor"),
        needs=tuple(
            f"pcam/camelyonpatch_level_2_split_{part}_{kind}.h5"
            for part in ("train", "valid", "test")
            for kind in "xy"
        ),
        origin="https://github.com/basveeling/pcam, unpacked",
    ),
    ZooSet(
        cls="Caltech101",
        images=8_677,
        what="photos of objects, 101 classes",
        parts=_WHOLE,
        listing=has.caltech101,
        needs=("caltech101/101_ObjectCategories/",),
        origin="101_ObjectCategories.tar.gz in caltech-101.zip, "
        "https://data.caltech.edu/records/mzrjq-6wc02",
    ),
    ZooSet(
        cls="Caltech256",
        images=30_607,
        what="photos of objects, 257 classes with clutter",
        parts=_WHOLE,
        listing=has.caltech256,
        needs=("caltech256/256_ObjectCategories/",),
        origin="256_ObjectCategories.tar, https://data.caltech.edu/records/nyy15-4j048",
    ),
    ZooSet(
        cls="Flowers102",
        images=8_189,
        what="photos of flowers, 102 classes",
        parts=_THREE,
        listing=has.files(),
        needs=("flowers-102/jpg/", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        origin="102flowers.tgz, https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    ),
    ZooSet(
        cls="OxfordIIITPet",
        images=7_349,
        what="photos of cats and dogs, 37 breeds",
        parts=(("train", {"split": "trainval"}), ("test", {"split": "test"})),
        listing=has.pets,
        needs=("oxford-iiit-pet/images/", "oxford-iiit-pet/annotations/"),
        origin="images.tar.gz and annotations.tar.gz, https://www.robots.ox.ac.uk/~vgg/data/pets",
    ),
    ZooSet(
        cls="EuroSAT",
        images=27_000,
        what="satellite images, 64x64, 10 kinds of land",
        parts=_WHOLE,
        listing=has.samples("samples"),
        needs=("eurosat/2750/",),
        origin="EuroSAT.zip, https://github.com/phelber/eurosat",
    ),
    ZooSet(
        cls="Food101",
        images=101_000,
        what="photos of dishes, 101 classes",
        parts=_TWO,
        listing=has.files(),
        needs=("food-101/meta/", "food-101/images/"),
        origin="food-101.tar.gz, https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    ),
    ZooSet(
        cls="DTD",
        images=5_640,
        what="photos of textures, 47 classes",
        parts=_THREE,
        listing=has.files(),
        needs=("dtd/dtd/",),
        origin="dtd-r1.0.1.tar.gz, https://www.robots.ox.ac.uk/~vgg/data/dtd",
    ),
    ZooSet(
        cls="FGVCAircraft",
        images=10_000,
        what="photos of aircraft, 100 variants",
        parts=_THREE,
        listing=has.files(),
        needs=("fgvc-aircraft-2013b/",),
        origin="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
        options=(
            SourceOption(
                name="annotation_level",
                help="what the classes are",
                choices=("variant", "family", "manufacturer"),
                default="variant",
            ),
        ),
    ),
    ZooSet(
        cls="GTSRB",
        images=39_270,
        what="photos of traffic signs, 43 classes, grouped by film",
        parts=_TWO,
        listing=has.gtsrb,
        classes=_SIGNS,
        needs=(
            "gtsrb/GTSRB/Training/",
            "gtsrb/GTSRB/Final_Test/Images/",
            "gtsrb/GT-final_test.csv",
        ),
        origin="GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip, "
        "https://benchmark.ini.rub.de",
    ),
    ZooSet(
        cls="Country211",
        images=63_300,
        what="photos from 211 countries",
        parts=(
            ("train", {"split": "train"}),
            ("val", {"split": "valid"}),
            ("test", {"split": "test"}),
        ),
        listing=has.samples("samples"),
        needs=("country211/",),
        origin="country211.tgz, https://github.com/openai/CLIP/blob/main/data/country211.md",
    ),
    ZooSet(
        cls="RenderedSST2",
        images=9_613,
        what="pictures of sentences, 448x448, 2 classes",
        parts=_THREE,
        listing=has.samples(),
        needs=("rendered-sst2/",),
        origin="rendered-sst2.tgz, https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md",
    ),
    ZooSet(
        cls="StanfordCars",
        images=16_185,
        what="photos of cars, 196 models",
        parts=_TWO,
        listing=has.samples(),
        needs=tuple(
            f"stanford_cars/{path}"
            for path in (
                "devkit/",
                "cars_train/",
                "cars_test/",
                "cars_test_annos_withlabels.mat",
            )
        ),
        origin="https://github.com/pytorch/vision/issues/7545, which has copies",
        downloads=False,
    ),
    ZooSet(
        cls="SUN397",
        images=108_754,
        what="photos of scenes, 397 classes",
        parts=_WHOLE,
        listing=has.sun397,
        needs=("SUN397/",),
        origin="SUN397.tar.gz, https://vision.princeton.edu/projects/2010/SUN",
    ),
    ZooSet(
        cls="Imagenette",
        images=13_394,
        what="photos, 10 easy classes of ImageNet",
        parts=_VAL_IS_TEST,
        listing=has.samples(),
        # The folder is called after the number alone, the first three characters of the option.
        needs=("imagenette2-{size:.3}/",),
        origin="https://github.com/fastai/imagenette",
        options=(
            SourceOption(
                name="size",
                help="of the shorter side of its files",
                choices=("320px", "160px"),
                default="320px",
            ),
        ),
        note=_VAL_NOTE,
    ),
    ZooSet(
        cls="ImageNet",
        images=1_331_167,
        what="photos, 1,000 classes",
        parts=_VAL_IS_TEST,
        listing=has.samples("samples"),
        needs=("meta.bin", "train/", "val/"),
        origin="https://image-net.org, unpacked by torchvision.datasets.ImageNet",
        downloads=False,
        note=_VAL_NOTE,
    ),
    ZooSet(
        cls="Places365",
        images=1_839_960,
        what="photos of scenes, 256x256, 365 classes",
        parts=(
            ("train", {"split": "train-standard", "small": True}),
            ("test", {"split": "val", "small": True}),
        ),
        listing=has.places365,
        needs=(
            "categories_places365.txt",
            "places365_train_standard.txt",
            "places365_val.txt",
            "data_256_standard/",
            "val_256/",
        ),
        origin="http://places2.csail.mit.edu",
        note=_VAL_NOTE,
    ),
)

ZOO_SOURCES: tuple[DataSource, ...] = tuple(row.source() for row in ZOO)
