"""The default study: handwritten digits of 8x8 pixels, three families, 30 trials.

    hpsearch search studies/digits.py      (or just: hpsearch search)

Data: 1,797 real images that come with scikit-learn; nothing is downloaded.
Cost: about a minute on two CPU cores.
Expect: validation accuracy of 99.4 % or more (cnn), about 99 % (mlp), 97 % (logistic).
"""

from hpsearch import SplitSpec, StudySpec

study = StudySpec(
    name="digits",
    data="digits",
    # One Optuna study each, so that pruning compares like with like.
    families=("logistic", "mlp", "cnn"),
    trials=30,
    epochs=60,
    # Stratified; the rest is for training. The test part stays sealed until an export.
    split=SplitSpec(val=0.2, test=0.2, seed=0),
    # Narrow or fix parameters by name here, for example:
    #     overrides={"lr": Range(1e-4, 1e-2), "optimizer": "adamw"}
    seed=0,
    keep=3,
)
