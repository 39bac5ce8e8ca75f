"""Layouts, the rotation, and three ways to attend that agree."""

import warnings

import pytest
import torch
from torch import Tensor

from training.model.attention import Backend, Layout, _block_mask, attend, dense, head_split, rotary_table, visible
from training.model.norms import rotated

PAN = Layout(1, (10, 10))
SMALL = Layout(1, (2, 2))
LAYOUTS = [SMALL, Layout(1, (2, 3), cond_in_first_chunk=True), Layout(0, (2, 1, 2)), Layout(2, (3,)), Layout(1, (2, 2), causal=False)]
TOKENS = 4


def test_groups_of_pans_window() -> None:
    assert PAN.frames == 21
    assert PAN.groups() == ((0, 1), (1, 11), (11, 21))
    assert Layout(1, (10, 10), cond_in_first_chunk=True).groups() == ((0, 11), (11, 21))
    assert Layout(0, (3, 3)).groups() == ((0, 3), (3, 6))
    assert Layout(1, (10, 10), causal=False).groups() == ((0, 21),)


def test_the_mask_saves_27_percent() -> None:
    assert (PAN.visible_pairs(), PAN.frames**2) == (321, 441)
    assert Layout(1, (10, 10), cond_in_first_chunk=True).visible_pairs() == 331  # 75.1 %
    for layout in LAYOUTS:
        assert int(visible(layout, TOKENS, torch.device("cpu")).sum()) == layout.visible_pairs() * TOKENS**2


def test_contexts() -> None:
    assert PAN.segments() == ((0, 11, 0), (11, 21, 1))
    assert [PAN.cross_group(frame) for frame in (0, 1, 10, 11, 20)] == [0, 0, 0, 1, 1]
    own = Layout(1, (10, 10), cond_context="own")
    assert (PAN.contexts, own.contexts) == (2, 3)
    assert [own.cross_group(frame) for frame in (0, 1, 10, 11, 20)] == [2, 0, 0, 1, 1]
    assert Layout(0, (3, 3)).segments() == ((0, 3, 0), (3, 6, 1))


@pytest.mark.parametrize("arguments", [(1, ()), (1, (2, 0)), (-1, (2,))])
def test_impossible_layouts_are_refused(arguments: tuple[int, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="give at least one chunk"):
        Layout(*arguments)


def test_a_context_for_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="without condition frames"):
        Layout(0, (2,), cond_context="own")


def qkv(layout: Layout, grad: bool = False) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, layout.frames * TOKENS, 3, 16, dtype=torch.float64, requires_grad=grad) for _ in range(3)]


def by_hand(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Softmax attention in loops' clothes: the definition, group by group number."""
    group = torch.tensor([next(i for i, (a, b) in enumerate(layout.groups()) if a <= token // TOKENS < b) for token in range(q.shape[1])])
    scores = torch.einsum("bqne,bkne->bnqk", q, k) / 4.0
    weights = scores.masked_fill(group[None, :] > group[:, None], -torch.inf).softmax(-1)
    return torch.einsum("bnqk,bkne->bqne", weights, v)


@pytest.mark.parametrize("backend", ["prefix_dense", "mask", "flex"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_back_ends_agree_forward(layout: Layout, backend: Backend) -> None:
    q, k, v = qkv(layout)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        got = attend(q, k, v, layout, TOKENS, backend)
    assert (got - by_hand(q, k, v, layout)).abs().max() <= 1e-12


@pytest.mark.parametrize("backend", ["prefix_dense", "mask"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_back_ends_agree_backward(layout: Layout, backend: Backend) -> None:
    """FlexAttention has no backward on a CPU: its gradient is compared by benchmarks/decoder_block.py where there is a GPU."""
    inputs = qkv(layout, grad=True)
    torch.manual_seed(1)
    wanted = torch.randn_like(inputs[0])
    got = torch.autograd.grad((attend(*inputs, layout, TOKENS, backend) * wanted).sum(), inputs)
    expected = torch.autograd.grad((by_hand(*inputs, layout) * wanted).sum(), inputs)
    for one, other in zip(got, expected, strict=True):
        assert other.abs().max() > 0.1
        assert (one - other).abs().max() <= 1e-12


def test_flex_refuses_gradients_on_a_cpu() -> None:
    with pytest.raises(ValueError, match="take the back end 'prefix_dense'"):
        attend(*qkv(SMALL, grad=True), SMALL, TOKENS, "flex")


def test_a_block_mask_of_an_inference_serves_training() -> None:
    with torch.inference_mode():
        mask = _block_mask(Layout(1, (1, 3)), TOKENS, 5 * TOKENS, torch.device("cpu"))
    kept = [value for value in mask.as_tuple() if isinstance(value, Tensor)]  # type: ignore[attr-defined]
    groups = [cell.cell_contents for cell in mask.mask_mod.__closure__ if isinstance(cell.cell_contents, Tensor)]  # type: ignore[attr-defined]
    assert len(kept) >= 2
    assert len(groups) == 1
    assert not any(value.is_inference() for value in (*kept, *groups))


@pytest.mark.parametrize("backend", ["prefix_dense", "mask", "flex"])
def test_queries_of_the_last_groups_only(backend: Backend) -> None:
    q, k, v = qkv(SMALL)
    whole = attend(q, k, v, SMALL, TOKENS)
    for first in (1, 3):
        got = attend(q[:, first * TOKENS :], k, v, SMALL, TOKENS, backend)
        assert (got - whole[:, first * TOKENS :]).abs().max() <= 1e-12


def test_tokens_that_do_not_fit_are_refused() -> None:
    q, k, v = qkv(SMALL)
    with pytest.raises(ValueError, match="20 keys for 5 latent frames of 3 tokens; give 15"):
        attend(q, k, v, SMALL, 3)
    with pytest.raises(ValueError, match="give those of whole groups"):
        attend(q[:, 2 * TOKENS :], k, v, SMALL, TOKENS)
    with pytest.raises(ValueError, match="there are prefix_dense, flex, mask"):
        attend(q, k, v, SMALL, TOKENS, "fast")  # type: ignore[arg-type]


def test_the_split_of_a_head() -> None:
    assert head_split(128) == (44, 42, 42)
    assert head_split(16) == (8, 4, 4)
    assert all(sum(head_split(width)) == width and all(part % 2 == 0 for part in head_split(width)) for width in range(6, 200, 2))


def table_of(size_FRC: tuple[int, int, int], first: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return rotary_table(16, 10000.0, size_FRC, first, torch.device("cpu"), dtype)


def test_the_rotation_by_hand() -> None:
    """Token (frame 2, row 1, column 1) of 3 x 2 x 2, first frame 5: pairs 0-3 turn with time 7, 4-5 with row 1, 6-7 with column 1."""
    torch.manual_seed(0)
    x = torch.randn(1, 12, 1, 16, dtype=torch.float64)
    got = torch.view_as_complex(rotated(x, table_of((3, 2, 2), first=5))[0, 11, 0].unflatten(0, (-1, 2)))
    angles = [7 * 10000 ** (-2 * i / 8) for i in range(4)] + [1 * 10000 ** (-2 * i / 4) for i in range(2)] * 2
    expected = torch.view_as_complex(x[0, 11, 0].unflatten(0, (-1, 2))) * torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
    assert (got - expected).abs().max() <= 1e-12


def test_the_real_form_that_compilers_take_is_the_complex_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, table = torch.randn(2, 12, 3, 16, dtype=torch.float64), table_of((3, 2, 2))
    eager = rotated(x, table)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert (rotated(x, table) - eager).abs().max() <= 1e-15


def test_only_differences_of_time_matter() -> None:
    q, k, v = qkv(SMALL)
    outputs = []
    for first in (0, 10, 1000):
        table = table_of((5, 2, 2), first)
        outputs.append(dense(rotated(q, table), rotated(k, table), v))
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-12
    assert (outputs[0] - outputs[2]).abs().max() <= 1e-12
    assert (outputs[0] - dense(q, k, v)).abs().max() > 1e-2


def test_tables_are_rounded_once_from_float64() -> None:
    assert torch.equal(table_of((30, 2, 2), 900, torch.float32), table_of((30, 2, 2), 900).float())


@pytest.mark.parametrize("around", [True, False])
def test_narrow_attention_on_a_cpu_learns_by_float32s_kernel(around: bool) -> None:
    """Its answer and gradients are those of float32, rounded; autocast around it changes nothing."""
    generator = torch.Generator().manual_seed(0)
    narrow = [torch.randn(2, 12, 2, 8, generator=generator).bfloat16().requires_grad_() for _ in range(3)]
    wide = [each.detach().float().requires_grad_() for each in narrow]
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        found = dense(*narrow)
    assert found.dtype == torch.bfloat16
    whole = dense(*wide)
    assert torch.equal(found, whole.bfloat16())
    given = torch.randn(whole.shape, generator=generator).bfloat16()
    mine, theirs = torch.autograd.grad(found, narrow, given), torch.autograd.grad(whole, wide, given.float())
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(mine, theirs, strict=True))
