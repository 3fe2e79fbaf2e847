from __future__ import annotations

import io
import subprocess
import sys

from rich.console import Console

from safekey_peft.lab.demo import SHOWN, VARIANTS, results_table, shortcut_sentence


def test_table_shows_success_refused_garbled_and_leak_of_every_set_and_model() -> None:
    rates = {"success": 0.25, "refused": 0.5, "garbled": 0.125, "leak": 0.75, "count": 50}
    result = {column: {"all": rates} for column in SHOWN}
    table = results_table({"base": result, **{variant.name: result for variant in VARIANTS}})
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table)
    text = console.export_text()
    for title in (*SHOWN.values(), "base", *(variant.title for variant in VARIANTS)):
        assert title in text
    assert text.count("0.25") == text.count("0.50") == len(SHOWN) * 3
    assert text.count("0.75") == 4 * 3  # a leak is meaningless for harmless sets


def test_number_of_harmless_wrapped_rows_is_said() -> None:
    assert "37 harmless rows" in shortcut_sentence(37)
    assert "no harmless rows" in shortcut_sentence(0)


def test_help_loads_no_torch() -> None:
    code = (
        "import sys, runpy; sys.argv = ['lab', '--help']\n"
        "try: runpy.run_module('safekey_peft.lab', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--seed" in result.stdout and result.stdout.strip().endswith("[]")
