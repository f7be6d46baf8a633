"""Files of weights: tensors are read, nothing is run, and what does not fit says what and how much."""

import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lsi.errors import InputError
from lsi.features.encoders.weights import put, read_weights

pytest.importorskip("safetensors", reason="needs the extra `encoders`")


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


@pytest.mark.parametrize("how", ["zip", "legacy", "safetensors", "checkpoint", "parallel", "averaged"])
def test_every_usual_way_to_keep_a_state_dict(tmp_path, how):
    state, path = net().state_dict(), tmp_path / ("w.safetensors" if how == "safetensors" else "w.pth")
    if how == "safetensors":
        save_file(state, path)
    elif how == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        others = {name: torch.zeros_like(value) for name, value in state.items()}
        kept = {
            "zip": state,
            "checkpoint": {"epoch": 3, "state_dict": state},
            "parallel": {f"module.{name}": value for name, value in state.items()},
            "averaged": {"state_dict": others, "state_dict_ema": state},
        }
        torch.save(kept[how], path)
    torch.testing.assert_close(read_weights(path), dict(state))


class Evil:
    def __reduce__(self):
        return print, ("it ran",)


def test_a_pickled_module_or_code_is_never_run(tmp_path, capsys):
    for kept in (net(), {"a": torch.zeros(2), "b": Evil()}):
        torch.save(kept, tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"never read.*torch.save\(model.state_dict\(\)"):
            read_weights(tmp_path / "w.pt")
    assert capsys.readouterr().out == ""


def test_files_that_hold_no_state_dict(tmp_path):
    path = tmp_path / "w.pt"
    for kept in ([torch.zeros(2)], torch.zeros(2), {}, {"epoch": 3}, {7: torch.zeros(2)}):
        torch.save(kept, path)
        with pytest.raises(InputError, match="no state dict|no tensors"):
            read_weights(path)
    for content in (b"", b"PK\x03\x04", b"\x80\x02."):
        path.write_bytes(content)
        with pytest.raises(InputError, match="w.pt"):
            read_weights(path)
    (tmp_path / "w.safetensors").write_bytes(b"\x09\x00\x00")
    with pytest.raises(InputError, match="damaged"):
        read_weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="cannot be opened"):
        read_weights(tmp_path / "gone.pt")


def test_tensors_that_seem_larger_than_they_are(tmp_path):
    for tensor in (torch.zeros(1).expand(1 << 40), torch.zeros(3, 3).to_sparse()):
        torch.save({"w": tensor}, tmp_path / "w.pt")
        with pytest.raises(InputError, match="'w' is no plain tensor"):
            read_weights(tmp_path / "w.pt")


def test_an_archive_that_becomes_larger_than_it_is(tmp_path):
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(InputError, match="unpacks to more than its size"):
        read_weights(tmp_path / "b.pt")


def test_weights_beyond_the_budget(tmp_path, monkeypatch):
    monkeypatch.setenv("LSI_MEMORY", "100KB")
    save_file({"w": torch.zeros(100_000)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="LSI_MEMORY"):
        read_weights(tmp_path / "w.safetensors")


def test_weights_that_do_not_fit_are_named_and_counted(tmp_path):
    path, good = tmp_path / "w.pt", net().state_dict()
    few = {name: value for name, value in good.items() if not name.startswith("1.")}
    told = r"4 tensors of 8 are missing \('1.weight', '1.bias', '1.running_mean', …\).*mymodule:function"
    with pytest.raises(InputError, match=told):
        put(few, net(), "net", path, ("head.",))
    more = {**good, "tail": torch.zeros(1), "head.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r": 1 tensors are unknown to it \('tail'\)\."):
        put(more, net(), "net", path, ("head.",))
    with pytest.raises(InputError, match=r"shape \('0.weight'\), \(9, 3\) in place of \(4, 3\)"):
        put({**good, "0.weight": torch.zeros(9, 3)}, net(), "net", path, ("head.",))
    given, other = {name: torch.ones_like(value) for name, value in good.items()}, net()
    del given["1.num_batches_tracked"]  # older files lack it
    put(given, other, "net", path, ("head.",))
    np.testing.assert_array_equal(other[0].weight.detach().numpy(), 1)
