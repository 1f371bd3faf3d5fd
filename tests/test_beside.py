"""Optional packages are put beside the environment: whole, or not at all."""

import beside
import pytest

NAMES = {"test": "extra-test", "name": "Extra", "size": "0.1 GB"}


def test_a_package_that_cannot_be_had_ends_in_one_line_and_leaves_no_stamp(tmp_path, capsys):
    pins = tmp_path / "requirements.txt"
    pins.write_text(f"{tmp_path}/missing-1.0-py3-none-any.whl\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        beside.install(tmp_path / "packages", pins, **NAMES)
    said = capsys.readouterr().err.strip()
    assert said.startswith("extra-test: Extra could not be installed (ERROR")
    assert "\n" not in said
    assert not (tmp_path / "packages" / ".installed").exists()


def test_what_stands_is_not_installed_again_until_the_pins_change(tmp_path, capsys):
    pins, target = tmp_path / "requirements.txt", tmp_path / "packages"
    pins.write_text("", encoding="utf-8")
    beside.install(target, pins, **NAMES)
    (target / "kept").touch()
    beside.install(target, pins, **NAMES)
    assert (target / "kept").exists()
    pins.write_text("# other pins\n", encoding="utf-8")
    beside.install(target, pins, **NAMES)
    assert not (target / "kept").exists()
    assert capsys.readouterr().out.count("installing Extra") == 2
