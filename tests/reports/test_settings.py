"""reports/settings.py: what runs set otherwise than each other, a row each."""

from bdl.reports.settings import differing
from bdl.runtime.config import Config, DomainConfig
from bdl.runtime.stage import flatten
from bdl.runtime.values import plain
from bdl.runtime.yaml_text import to_line


def flat(config: Config) -> dict:
    return flatten(plain(config))


def test_a_section_that_one_run_has_is_one_row_of_what_was_set_in_it():
    labelled = Config()
    labelled.data.target_labelled = DomainConfig(root="few", encoding="train_id")
    one, other = flat(Config()), flat(labelled)
    told = {"root": "few", "encoding": "train_id"}
    assert differing([one, other, one]) == [("data.target_labelled", [None, told, None])]
    assert differing([other, one]) == [("data.target_labelled", [told, None])]
    assert to_line(told) == "{root: few, encoding: train_id}"
    more = Config()
    more.data.target_labelled = DomainConfig(root="many", encoding="train_id")
    assert differing([other, flat(more)]) == [("data.target_labelled.root", ["few", "many"])]


def test_options_that_one_run_has_are_one_row():
    wide, none = Config(), Config()
    wide.segmentation.options = {"width": 8, "dilations": [1]}
    told = {"width": 8, "dilations": [1]}
    assert differing([flat(none), flat(wide)]) == [("segmentation.options", [{}, told])]


def test_keys_of_one_run_alone_are_rows():
    assert differing([{"a": 1, "b": 2}, {"a": 1}]) == [("b", [2, None])]
    assert differing([{"a": 1}, {"a": 1}]) == []
