"""What a folder of safetensors holds, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from training.model.tensor_files import listed, read_header, save, stored


def some() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {f"blocks.{i}.weight": torch.randn(4, 8, generator=random) for i in range(5)} | {"head": torch.ones(3, dtype=torch.bfloat16)}


def test_one_file_or_shards_with_an_index_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    assert [path.name for path in save(some(), tmp_path / "one")] == ["model.safetensors"]
    files = save(some(), tmp_path / "many", shard_bytes=300)
    assert [path.name for path in files] == [*(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)), "model.safetensors.index.json"]
    one, many = stored(tmp_path / "one"), stored(tmp_path / "many")
    assert {name: (entry.shape, entry.dtype) for name, entry in one.items()} == {name: (entry.shape, entry.dtype) for name, entry in many.items()}
    assert one["head"].dtype == "BF16"
    assert one["blocks.3.weight"].shape == (4, 8)
    assert many["blocks.0.weight"].file.name != many["blocks.4.weight"].file.name
    assert json.loads(files[-1].read_text())["metadata"]["total_size"] == 5 * 4 * 8 * 4 + 6
    with safe_open(many["blocks.4.weight"].file, "pt") as opened:
        assert torch.equal(opened.get_tensor("blocks.4.weight"), some()["blocks.4.weight"])


def test_a_tied_tensor_is_written_once(tmp_path: Path) -> None:
    same = torch.ones(2, 2)
    save({"shared": same, "alias": same, "row": same[0]}, tmp_path)
    assert stored(tmp_path).keys() == {"shared", "row"}


def test_a_single_file_is_a_source_too(tmp_path: Path) -> None:
    (file,) = save(some(), tmp_path)
    assert stored(file).keys() == some().keys()


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "pytorch_model.bin", "model.ckpt"])
def test_a_pickle_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=rf"{name}: pickled weights are not opened, since reading a pickle can run any code; give the safetensors"):
            stored(source)


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no safetensors there"):
        stored(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        stored(tmp_path / "nowhere")


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (file,) = save(some(), tmp_path)
    whole = file.read_bytes()
    for cut, text in ((len(whole) - 1, "the copy is incomplete"), (100, "cut off"), (4, "cut off")):
        file.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=text):
            read_header(file)
    file.write_bytes((5).to_bytes(8, "little") + b'{"a":')
    with pytest.raises(ValueError, match="its table of tensors is damaged"):
        read_header(file)


def test_two_sets_in_a_folder_are_refused(tmp_path: Path) -> None:
    save(some(), tmp_path)
    save(some(), tmp_path, stem="model.fp16")
    with pytest.raises(ValueError, match=r"more than one set of weights \(model.fp16.safetensors, model.safetensors\)"):
        stored(tmp_path)


def test_an_index_that_tells_otherwise_than_the_files_is_refused(tmp_path: Path) -> None:
    *files, index = save(some(), tmp_path, shard_bytes=300)
    table = json.loads(index.read_text())
    table["weight_map"]["blocks.7.weight"] = table["weight_map"]["blocks.9.weight"] = files[0].name
    index.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"names tensors that its files do not hold: blocks.\{7,9\}.weight"):
        stored(tmp_path)
    files[1].unlink()
    with pytest.raises(ValueError, match=r"names files that are not there: model-00002-of-00003.safetensors"):
        stored(tmp_path)
    index.write_text(json.dumps({"weight_map": {"head": "../secret.safetensors"}}))
    with pytest.raises(ValueError, match="not there"):
        stored(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="not an index of safetensors"):
        stored(tmp_path)


def test_names_that_differ_in_a_layer_are_listed_together() -> None:
    names = [f"blocks.{i}.q.weight" for i in (0, 1, 2, 5)] + ["blocks.3.k.weight", "head", "shared.weight"]
    assert listed(names) == "blocks.{0-2,5}.q.weight, blocks.3.k.weight, head, shared.weight"
    assert listed([f"x{i}" for i in range(33)]).endswith("x29 and 3 groups more")
