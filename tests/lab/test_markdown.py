from __future__ import annotations

import re
from pathlib import Path

from safekey_peft.lab.caution import CAUTION
from safekey_peft.lab.markdown import markdown, write_markdown
from tests.lab.canned import canned, records, with_ablations

COMMAND = "safekey lab --seeds 3 --variants sft,all"


def test_file_opens_with_what_reproduces_it(tmp_path: Path) -> None:
    text = write_markdown(records(), tmp_path / "results" / "lab.md", COMMAND).read_text()
    opening = text.partition("## ")[0]
    assert f"`{COMMAND}`" in opening and "Seeds 0, 1, 2; 4 variants, 12 cells." in opening
    assert "Machine: CPU 9, 2 cores." in opening and "torch 1.2.3" in opening and "Code: c." in opening
    assert text.count(CAUTION) == 2 and "100 harmless rows" in opening
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["lab.md"]


def test_time_is_that_of_the_clock_and_of_the_cells() -> None:
    # one run of three minutes; 12 cells of half a minute
    text = markdown(records(), COMMAND)
    assert "3 minutes on the clock with 2 processes, bases included; 6 minutes of tuning" in text
    later = [canned(5, "sft", 0.5)]
    later[0]["seconds"] |= {"run_started": 9000, "run": 120.0}
    assert "5 minutes on the clock" in markdown([*records(), *later], COMMAND)


def test_what_was_not_recorded_is_not_made_up() -> None:
    old = [canned(seed, name, 0.5, machine=None) for seed in range(2) for name in ("sft", "all")]
    text = markdown(old, COMMAND)
    assert "Machine: not recorded." in text and "the time on the clock were not recorded" in text


def test_several_machines_and_codes_are_all_named() -> None:
    text = markdown([*records(), canned(5, "sft", 0.5, code="e", machine="CPU 10")], COMMAND)
    assert "Machine: CPU 9, 2 cores; CPU 10, 2 cores." in text and "Code: c; e." in text
    assert "WARNING: these results were made by different versions of the code." in text


def test_tables_hold_outcomes_verdicts_differences_ablations_and_every_seed() -> None:
    text = markdown(with_ablations(), COMMAND)
    assert "| late reveal | success | 0.99±0.01 | 0.74±0.01 | 0.09±0.01 | 0.04±0.01 |" in text
    assert "| late reveal | RTO | 0.09 | 0.04 | -0.05 ± 0.00 | not worse |" in text
    assert re.search(r"\| all \| SFT \| -0.70 \[-0.70, -0.70\] \(3/3\) \|", text)
    assert "| – RTO, keep 0.5 | 0.18±0.02 |" in text
    assert "| RTO, keep 0.5 | RTO | +0.09 [+0.07, +0.11] (0/3) |" in text
    assert "### late reveal, success" in text and "| 2 | 0.98 | 0.73 | 0.08 | 0.03 |" in text


def test_every_table_is_rectangular() -> None:
    titled = [canned(0, "a|b", 0.5), *with_ablations()]
    blocks = [part.splitlines() for part in markdown(titled, COMMAND).split("\n\n") if part.startswith("|")]
    assert len(blocks) > 10
    for lines in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1, lines


def test_neither_paths_nor_hosts_are_named() -> None:
    import platform

    text = markdown(with_ablations(), COMMAND)
    assert str(Path.cwd()) not in text and platform.node() not in re.split(r"\W+", text)
