"""Images with what is known of them, from folders, archives, tables and idx files."""

from stn_cli.training.examples.found import Reading, Split
from stn_cli.training.examples.known import Dataset, Examples, Problem, joined
from stn_cli.training.examples.reading import read_examples

__all__ = ["Dataset", "Examples", "Problem", "Reading", "Split", "joined", "read_examples"]
