import json

import pytest

from vggrpo.config import ConfigError
from vggrpo.data import Prompt, load_prompts, read_prompts
from vggrpo.data.prompts import ID_PATTERN


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, "utf-8")
    return path


def test_text_file_has_a_prompt_a_line(tmp_path):
    path = written(tmp_path, "prompts.txt", "a red box\n\n  a blue sphere \n")
    prompts = load_prompts(path)
    assert [prompt.text for prompt in prompts] == ["a red box", "a blue sphere"]
    assert all(prompt.kind == "" for prompt in prompts)


def test_ids_follow_the_text_and_not_its_place(tmp_path):
    first = load_prompts(written(tmp_path, "first.txt", "a red box\na blue sphere\n"))
    second = load_prompts(written(tmp_path, "second.txt", "a green cone\na red box\n"))
    assert second[1] == first[0]
    assert len({prompt.id for prompt in (*first, *second)}) == 3
    assert second[1].id.startswith("a-red-box-")


@pytest.mark.parametrize(
    "text", ["\u4e00\u4e2a\u7ea2\u8272\u7684\u76d2\u5b50", "../a/b", "-x-", "word " * 50]
)
def test_ids_made_from_a_text_can_name_files(text):
    assert ID_PATTERN.fullmatch(Prompt.from_text(text).id)


def test_json_lines_carry_id_and_kind(tmp_path):
    lines = [
        {"id": "p-1", "prompt": "a red box", "kind": "static"},
        {"id": 7, "prompt": "b"},
        {"prompt": "c"},
    ]
    path = written(tmp_path, "prompts.jsonl", "\ufeff" + "\n".join(map(json.dumps, lines)))
    assert load_prompts(path) == [
        Prompt("p-1", "a red box", "static"),
        Prompt("7", "b"),
        Prompt.from_text("c"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"prompts.jsonl:2: not valid JSON"),
        ('["a"]', r"prompts.jsonl:2: expected an object with id, prompt, kind"),
        ('{"id": "x"}', r"prompts.jsonl:2: prompt is None, expected a text that is not empty"),
        ('{"prompt": "  "}', r"prompts.jsonl:2: prompt is '  '"),
        ('{"prompt": 3}', r"prompts.jsonl:2: prompt is 3"),
        ('{"prompt": "b", "kind": 3}', r"prompts.jsonl:2: kind is 3, expected a text"),
        (
            '{"prompt": "b", "kinds": "x"}',
            r"prompts.jsonl:2: unknown field 'kinds'; known are id, prompt, kind",
        ),
        (
            '{"prompt": "b", "id": "../up"}',
            r"prompts.jsonl:2: id is '../up', expected .* letter or digit first",
        ),
        ('{"prompt": "b", "id": true}', r"prompts.jsonl:2: id is True"),
        ('{"prompt": "b", "id": "one"}', r"prompts.jsonl:2: the id 'one' is that of line 1 again"),
        ('{"prompt": "a  red box", "id": "two"}', r"jsonl:2: the prompt 'a red box' is that of line 1 again"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, message):
    path = written(tmp_path, "prompts.jsonl", '{"id": "one", "prompt": "a red box"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=message):
        load_prompts(path)


def test_all_wrong_lines_of_a_file_are_reported_at_once(tmp_path):
    path = written(tmp_path, "prompts.jsonl", '{"prompt": ""}\n{"prompt": "a"}\n{\n')
    with pytest.raises(ConfigError) as caught:
        load_prompts(path)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["1", "3"]


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no prompt file .*missing\.txt"):
        load_prompts(tmp_path / "missing.txt")
    with pytest.raises(ConfigError, match=r"empty\.txt holds no prompts"):
        load_prompts(written(tmp_path, "empty.txt", "\n \n"))
    with pytest.raises(ConfigError, match=r"prompts\.csv is no prompt file: expected \.txt"):
        load_prompts(written(tmp_path, "prompts.csv", "a"))
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.txt is not UTF-8 text"):
        load_prompts(tmp_path / "latin.txt")
    with pytest.raises(ConfigError, match=r"twice\.txt:3: the prompt 'a red box' is that of line 1 again"):
        load_prompts(written(tmp_path, "twice.txt", "a red box\nb\na red  box\n"))


def test_a_command_line_gives_texts_or_a_file(tmp_path):
    path = written(tmp_path, "prompts.txt", "a red box\n")
    assert read_prompts([str(path)]) == read_prompts(["a red box"]) == [Prompt.from_text("a red box")]
    assert [prompt.text for prompt in read_prompts(["one ", "two"])] == ["one", "two"]
    with pytest.raises(ConfigError, match=r"no prompts were given"):
        read_prompts([])
    with pytest.raises(ConfigError, match=r"prompt 2 is empty"):
        read_prompts(["a", " "])
    with pytest.raises(ConfigError, match=r"prompt 3 is prompt 1 again"):
        read_prompts(["a", "b", "a"])
