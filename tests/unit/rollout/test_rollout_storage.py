"""Trajectories in files are those in memory, and are scored from what is stored."""

import pytest
import torch

from vggrpo.flow import SigmaSchedule
from vggrpo.io import load_tensors
from vggrpo.rollout import StoredRows, rescore, sample_group

SHAPE = (4, 2, 4, 6)
SEEDS = [11, 12, 13, 14, 15]
SCHEDULE = SigmaSchedule.unipc(5, shift=3.0)


def draw(policy, embeds, folder=None, **settings):
    settings = {"micro_batch": 2, **settings}
    return sample_group(
        policy, embeds[0][0], SCHEDULE, SEEDS, SHAPE, prompt_id="a", storage_folder=folder, **settings
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_hold_what_memory_holds(linear_policy, embeds, tmp_path, dtype):
    memory = draw(linear_policy, embeds, storage_dtype=dtype)
    disk = draw(linear_policy, embeds, tmp_path, storage_dtype=dtype)
    assert torch.equal(disk.old_log_probs, memory.old_log_probs)
    for kept, whole in ((disk.states, memory.states), (disk.latents, memory.latents)):
        assert isinstance(kept, StoredRows)
        assert (kept.shape, len(kept), kept.dtype) == (tuple(whole.shape), len(whole), whole.dtype)
        for rows in (slice(None), slice(1, 4), slice(2, 3), slice(3, 9), slice(4, 4), slice(-2, None)):
            assert torch.equal(kept[rows], whole[rows])
    for key in ((slice(1, 4), slice(2, 4)), (slice(None), slice(0, 1)), (slice(3, 3), slice(1, 3))):
        assert torch.equal(disk.states[key], memory.states[key])
    # A file for each micro-batch, with every state once.
    files = [load_tensors(file) for file in sorted(tmp_path.iterdir())]
    assert [len(file["states"]) for file in files] == [2, 2, 1]
    assert torch.equal(torch.cat([file["states"] for file in files]), memory.states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("members", [slice(None), slice(1, 4)])
def test_a_stored_step_is_scored_as_it_was_drawn(policy, embeds, tmp_path, dtype, members):
    group = draw(policy, embeds, tmp_path, storage_dtype=dtype, window=(1, 2)).to("cpu")
    for step in range(group.num_steps):
        log_prob = rescore(policy, group, step, members).log_prob.detach()
        ratio = (log_prob - group.old_log_probs[members, step]).exp()
        assert float((ratio - 1).abs().max()) <= 1e-6


def test_some_members_of_a_stored_group(linear_policy, embeds, tmp_path):
    group, memory = draw(linear_policy, embeds, tmp_path), draw(linear_policy, embeds)
    part, expected = group.take(slice(1, 4)), memory.take(slice(1, 4))
    assert part.seeds == (12, 13, 14)
    assert torch.equal(part.states[:], expected.states)
    assert torch.equal(part.take(slice(1, 3)).latents[:], expected.latents[1:3])
    assert torch.equal(rescore(linear_policy, part, 2).log_prob, rescore(linear_policy, expected, 2).log_prob)


def test_the_ode_alone_leaves_clean_latents(linear_policy, embeds, tmp_path):
    group, memory = (
        draw(linear_policy, embeds, tmp_path, window=(0, 0)),
        draw(linear_policy, embeds, window=(0, 0)),
    )
    assert group.states.shape == (5, 0, *SHAPE)
    assert torch.equal(group.latents[:], memory.latents)


def test_files_that_are_gone_are_named(linear_policy, embeds, tmp_path):
    group = draw(linear_policy, embeds, tmp_path)
    (tmp_path / "rows_00002.safetensors").unlink()
    assert group.latents[:2].shape == (2, *SHAPE)
    with pytest.raises(FileNotFoundError):
        group.latents[:3]
