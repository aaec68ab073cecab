import pytest
import torch

from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.data import ClipCache


def clip(index):
    generator = torch.Generator().manual_seed(index)
    return {
        "latents": torch.randn(2, 3, generator=generator),
        "frames": torch.randint(0, 256, (4, 5, 3), generator=generator, dtype=torch.uint8),
    }


class Source:
    """Batches of clips that depend on their index only, and a record of where they were asked to start."""

    def __init__(self, batch_size=3, stop_at=None):
        self.batch_size, self.stop_at, self.starts, self.made = batch_size, stop_at, [], 0

    def __call__(self, start):
        self.starts.append(start)
        while True:
            if self.stop_at is not None and start >= self.stop_at:
                raise KeyboardInterrupt
            clips = [clip(start + i) for i in range(self.batch_size)]
            self.made += self.batch_size
            yield {name: torch.stack([c[name] for c in clips]) for name in clips[0]}
            start += self.batch_size


def same(cache, indices):
    for index in indices:
        expected = clip(index)
        assert cache[index].keys() == expected.keys()
        assert all(torch.equal(cache[index][name], value) for name, value in expected.items())


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20])
def test_clips_come_back_whatever_the_batches(tmp_path, batch_size):
    cache = ClipCache.build(tmp_path, Source(batch_size), key={"seed": 0}, num_clips=10, shard_size=4)
    assert len(cache) == 10
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    same(cache, range(10))
    batch = cache.batch([7, 0, 7])
    assert torch.equal(batch["frames"], torch.stack([clip(i)["frames"] for i in (7, 0, 7)]))
    assert batch["frames"].dtype == torch.uint8


def test_a_finished_cache_makes_nothing(tmp_path):
    ClipCache.build(tmp_path, Source(), key={"seed": 0}, num_clips=10, shard_size=4)
    source = Source()
    cache = ClipCache.build(tmp_path, source, key={"seed": 0}, num_clips=10, shard_size=64)
    assert source.starts == []
    same(cache, range(10))
    assert ClipCache(tmp_path).key == {"seed": 0}
    assert len(ClipCache(tmp_path)) == 10


def test_an_interrupted_cache_keeps_its_finished_shards(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ClipCache.build(tmp_path, Source(stop_at=9), key={}, num_clips=12, shard_size=4)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cache.json",
        "clips_000000.safetensors",
        "clips_000001.safetensors",
    ]
    with pytest.raises(FileNotFoundError, match=r"has 8 of 12 clips: run the command that builds it again"):
        ClipCache(tmp_path, 12)
    source = Source()
    cache = ClipCache.build(tmp_path, source, key={}, num_clips=12, shard_size=4)
    assert source.starts == [8]
    assert source.made <= 6
    same(cache, range(12))


def test_a_cache_grows_and_serves_fewer(tmp_path):
    ClipCache.build(tmp_path, Source(), key={}, num_clips=6, shard_size=4)
    source = Source()
    cache = ClipCache.build(tmp_path, source, key={}, num_clips=11)
    assert source.starts == [4]
    same(cache, range(11))
    untouched = Source()
    fewer = ClipCache.build(tmp_path, untouched, key={}, num_clips=5)
    assert untouched.starts == []
    assert len(fewer) == 5
    with pytest.raises(IndexError, match=r"clip 5 .* has 5 clips"):
        fewer[5]
    with pytest.raises(IndexError, match=r"clip -1"):
        fewer[-1]


def test_another_key_is_refused_and_named(tmp_path):
    ClipCache.build(tmp_path, Source(), key={"vae": "abc", "size": (48, 64)}, num_clips=3)
    ClipCache.build(tmp_path, Source(), key={"vae": "abc", "size": [48, 64]}, num_clips=3)
    with pytest.raises(ConfigError, match=r"made with other settings \(vae: 'abc' there, 'xyz' now\)"):
        ClipCache.build(tmp_path, Source(), key={"vae": "xyz", "size": (48, 64)}, num_clips=3)
    same(ClipCache(tmp_path), range(3))
    source = Source()
    cache = ClipCache.build(tmp_path, source, key={"vae": "xyz"}, num_clips=2, rebuild=True)
    assert source.starts == [0]
    assert cache.key == {"vae": "xyz"}


def test_clips_are_read_without_reading_the_shard(tmp_path):
    """The others' bytes may be garbage: only the header and the clip itself are looked at."""
    cache = ClipCache.build(tmp_path, Source(), key={}, num_clips=4)
    file = tmp_path / "clips_000000.safetensors"
    expected = cache[0]["frames"].clone()
    content = bytearray(file.read_bytes())
    content[-1] ^= 0xFF
    file.write_bytes(content)
    assert torch.equal(ClipCache(tmp_path)[0]["frames"], expected)


def test_damage_and_absence_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no clip cache"):
        ClipCache(tmp_path)
    ClipCache.build(tmp_path, Source(), key={}, num_clips=8, shard_size=4)
    shard = tmp_path / "clips_000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(CorruptFileError, match=r"clips_000001.safetensors is damaged"):
        ClipCache(tmp_path)
    (tmp_path / "cache.json").write_text("{}")
    with pytest.raises(CorruptFileError, match=r"cache.json is damaged; delete"):
        ClipCache(tmp_path)


def test_wrong_batches_are_refused(tmp_path):
    def build(batches, **options):
        ClipCache.build(tmp_path, lambda start: iter(batches), key={}, **{"num_clips": 4, **options})

    with pytest.raises(ValueError, match=r"the batches ended after 2 of 4 clips"):
        build([{"a": torch.zeros(2)}])
    with pytest.raises(ValueError, match=r"a batch holds {'a': 2, 'b': 3} clips by tensor"):
        build([{"a": torch.zeros(2), "b": torch.zeros(3)}])
    with pytest.raises(ValueError, match=r"num_clips is 0"):
        build([], num_clips=0)
    with pytest.raises(ValueError, match=r"shard_size is 0"):
        build([], shard_size=0)
    with pytest.raises(ValueError, match=r"indices is empty"):
        ClipCache.build(tmp_path, Source(), key={}, num_clips=3).batch([])
