"""Letters of many typefaces before clutter, 37 classes: a hard study that runs anywhere.

    hpsearch search studies/glyphs.py
    hpsearch export glyphs -o exports/searched
    hpsearch export glyphs --trial cnn-0 -o exports/defaults
    hpsearch compare exports/defaults exports/searched

Data: 6,000 images of 32x32, drawn when they are first read; nothing is downloaded. The test part
has typefaces that are nowhere else, so the test asks for more than the validation does.
Trial cnn-0 is the family's default configuration, tried first: what one gets without a search.
Cost: not measured yet.
"""

from hpsearch import DataSpec, Range, SplitSpec, StudySpec

study = StudySpec(
    name="glyphs",
    data=DataSpec(source="glyphs", options={"images": 6000, "letters": 37}),
    families=("cnn",),
    trials=40,
    epochs=30,
    # Of the images that are not of the official test part, a quarter is for validation.
    split=SplitSpec(val=0.25, test=0.25, seed=0),
    overrides={
        "optimizer": ("adamw", "muon"),
        "lr": Range(3e-4, 3e-2),
        "batch_size": (32, 64, 128),
        "channels": (32, 48, 64),
        "rotate": Range(0, 25),
        "shear": Range(0, 15),
        "erase": Range(0, 0.5),
        "jitter": Range(0, 0.4),
        "mixup": (0, 0.2),
        "ema": (0, 0.99),
    },
    seed=0,
)
