"""`tfds build` without what the `tfds` command also imports for its other commands.

Run it in a data set's folder as `python ../tfds_build.py OPTIONS`; the options are those of
`tfds build`. tensorflow-datasets 4.9.10 imports apache-beam and mlcroissant whenever `tfds` starts;
building needs neither.
"""

import simple_parsing
from tensorflow_datasets.scripts.cli import build

if __name__ == "__main__":
    simple_parsing.parse(build.Args).execute()
