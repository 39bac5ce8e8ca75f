"""Loading: every tensor to its place, its device and its dtype; nothing missing, nothing surplus, nothing in silence."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.model.tensor_files import save
from training.model.weights import empty_weights, load


class Small(nn.Module):
    """Linear layers, a tied pair, a kept buffer and one that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.shared = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.shared.weight
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("table", torch.arange(4.0), persistent=False)


def made(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def empty() -> Small:
    with empty_weights():
        return Small()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = made()
    model.count.fill_(7)
    save(model.state_dict(), tmp_path, shard_bytes=100)
    return tmp_path


def test_an_empty_module_has_no_memory_but_its_tables() -> None:
    model = empty()
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(model.table, torch.arange(4.0))
    assert not any(parameter.is_meta for parameter in made().parameters())  # and what is built outside is as ever
    assert model.head.weight is model.shared.weight


def test_everything_is_where_it_was(folder: Path) -> None:
    model, wanted = empty(), made()
    assert load(model, folder) == []
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor if name != "count" else torch.tensor([7])), name
    assert model.head.weight is model.shared.weight
    x = torch.ones(2, 4)
    assert torch.equal(model.blocks[0](x), wanted.blocks[0](x))


def test_the_dtype_is_as_stored_as_told_or_by_name(folder: Path) -> None:
    model = empty()
    load(model, folder)
    assert model.head.weight.dtype == torch.float32
    load(model, folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.count.dtype == torch.int64
    load(model, folder, dtype=lambda name: torch.float64 if name.endswith("bias") else torch.bfloat16)
    assert {name.rpartition(".")[2]: parameter.dtype for name, parameter in model.named_parameters()} == {"weight": torch.bfloat16, "bias": torch.float64}


def test_frozen_parameters_stay_frozen(folder: Path) -> None:
    model = empty().requires_grad_(False)
    model.blocks[1].requires_grad_(True)
    load(model, folder)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["blocks.1.weight", "blocks.1.bias"]


def test_a_tensor_that_keeps_its_dtype_is_mapped_to_its_file(folder: Path) -> None:
    model = empty()
    load(model, folder)
    with torch.no_grad():  # the map is private: training does not write into the file
        model.blocks[0].weight.zero_()
    again = empty()
    load(again, folder)
    assert torch.equal(again.blocks[0].weight, made().blocks[0].weight)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(folder) in maps.read_text()


def resident_bytes(kind: str) -> int:
    """Memory of this process that is in use: "RssAnon" its own, "RssFile" files' that it has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(kind))) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's memory by kind")
def test_loading_takes_no_memory_beside_the_files_own(tmp_path: Path) -> None:
    size = 4096
    save({"weight": torch.ones(size, size), "bias": torch.ones(size)}, tmp_path)
    before = resident_bytes("RssAnon")
    with empty_weights():
        model = nn.Linear(size, size)
    assert resident_bytes("RssAnon") - before < 8 << 20
    load(model, tmp_path)
    assert model.weight.sum() == size**2  # all of the 64 MiB has been read
    assert resident_bytes("RssAnon") - before < 16 << 20
    load(model, tmp_path, dtype=torch.bfloat16)
    assert resident_bytes("RssAnon") - before < (32 + 16) << 20  # its own 32 MiB, and no second copy in float32


def test_missing_surplus_and_misshapen_tensors_are_all_named_and_nothing_is_changed(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = dict(made().state_dict())
    for i in range(3):
        del tensors[f"blocks.{i}.bias"]
    tensors |= {"blocks.2.weight": torch.ones(4, 3), "other.0.gain": torch.ones(1), "other.1.gain": torch.ones(1)}
    save(tensors, tmp_path)
    model = made(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="not the weights of this Small") as raised:
        load(model, tmp_path)
    for text in (r"3 missing: blocks.{0-2}.bias", "2 surplus: other.{0-1}.gain", "1 wrong: blocks.2.weight: [4, 3] in the file, [4, 4] in the model"):
        assert text in str(raised.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_may_be_absent_gets_memory_and_is_told(tmp_path: Path) -> None:
    save({name: tensor for name, tensor in made().state_dict().items() if not name.startswith("blocks.2")}, tmp_path)
    model = empty()
    left = load(model, tmp_path, absent=lambda name: name.startswith("blocks.2"), dtype=torch.bfloat16)
    assert left == ["blocks.2.weight", "blocks.2.bias"]
    assert not model.blocks[2].weight.is_meta
    assert model.blocks[2].weight.dtype == torch.bfloat16


def test_what_is_not_used_must_be_said(tmp_path: Path) -> None:
    save({**made().state_dict(), "lm_head.weight": torch.ones(2)}, tmp_path)
    with pytest.raises(ValueError, match=r"1 surplus: lm_head.weight"):
        load(empty(), tmp_path)
    assert load(empty(), tmp_path, unused=lambda name: name.startswith("lm_head.")) == []


def test_names_are_mapped_and_unknown_ones_are_surplus(tmp_path: Path) -> None:
    def keymap(name: str) -> str:
        if not name.startswith("model."):
            raise ValueError(name)
        return name.removeprefix("model.")

    save({f"model.{name}": tensor for name, tensor in made().state_dict().items()} | {"stray": torch.ones(1)}, tmp_path)
    with pytest.raises(ValueError, match="1 surplus: stray"):
        load(empty(), tmp_path, keymap=keymap)
    model = empty()
    load(model, tmp_path, keymap=keymap, unused=lambda name: name == "stray")
    assert torch.equal(model.blocks[1].weight, made().blocks[1].weight)


def test_a_tensor_under_two_names_of_which_the_model_has_one_is_refused(tmp_path: Path) -> None:
    save({**made().state_dict(), "blocks.0.weight.old": torch.ones(4, 4)}, tmp_path)
    with pytest.raises(ValueError, match=r"blocks.0.weight: held 2 times, as blocks.0.weight, blocks.0.weight.old"):
        load(empty(), tmp_path, keymap=lambda name: name.removesuffix(".old"))


def test_both_names_of_a_tied_tensor_may_be_there(tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in made().state_dict().items()}
    assert {"shared.weight", "head.weight"} <= tensors.keys()
    save(tensors, tmp_path)
    model = empty()
    load(model, tmp_path)
    assert model.head.weight is model.shared.weight


def test_tables_lost_on_meta_are_told(folder: Path) -> None:
    with torch.device("meta"):
        model = Small()
    with pytest.raises(ValueError, match="buffers without memory, which no file holds: table; build the module inside empty_weights"):
        load(model, folder)
