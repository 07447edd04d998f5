"""The encoding of a file: what exports write is found, in a dozen languages."""

import io
from pathlib import Path

import pytest

from bertlora.data.encoding import detect_encoding
from bertlora.data.sources import open_sources
from bertlora.data.text_file import FileFormat

# A row of each class, written for this test, and the encodings in which people have such files.
TEXTS = {
    "a joy from the start,pos\nUn café, “voilà” – it’s fine,neg": ["cp1252", "utf-8", "utf-8-sig", "utf-16"],
    "Ce film était très émouvant, à voir.,pos\nUne déception, hélas, ça traîne.,neg": [
        "cp1252",
        "mac_roman",
        "utf-16-le",
    ],
    "Der Film war schön und größer als erwartet.,pos\nEine Enttäuschung für alle.,neg": ["cp1252", "utf-16-be"],
    "¡Qué película tan bonita!,pos\nUn guión flojo, señor.,neg": ["cp1252"],
    "Świetny film, bardzo mi się podobał.,pos\nNudny, zbyt długi i źle zagrany.,neg": ["cp1250", "iso8859_2"],
    "Skvělý film, který mě dojal od první minuty.,pos\nNudný příběh, špatní herci.,neg": ["cp1250"],
    "Çok güzel bir film, şiddetle öneririm.,pos\nSıkıcı ve çok uzun, beğenmedim.,neg": ["cp1254"],
    "Puikus filmas, sujaudinęs mane nuo pirmos minutės.,pos\nNuobodi istorija ir per ilga.,neg": ["cp1257"],
    "Myndin var mjög góð, ég mæli með henni.,pos\nÞetta var leiðinlegt og allt of langt.,neg": ["cp1252"],
    "Фильм очень хороший, всем советую.,pos\nСкучно и слишком длинно.,neg": ["cp1251", "koi8_r"],
    "Πολύ καλή ταινία.,pos\nΒαρετή και μεγάλη.,neg": ["cp1253"],
    "とても面白い映画でした。,pos\n退屈で長すぎる。,neg": ["cp932", "euc_jp"],
    "这部电影非常好看。,pos\n太无聊了,太长了。,neg": ["gb18030"],
}


@pytest.mark.parametrize(("text", "encoding"), [(text, name) for text, names in TEXTS.items() for name in names])
def test_encodings_are_detected(text: str, encoding: str) -> None:
    raw = ("text,label\n" + "plain words only,pos\n" * 20 + text + "\n").encode(encoding)
    assert raw.decode(detect_encoding(io.BytesIO(raw))) == raw.decode(encoding)


def test_a_given_encoding_and_delimiter_win(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("text;more,label\nÐîññèÿ;x,1\n".encode("cp1252"))
    source = open_sources([str(path)], FileFormat("cp1251", ","))[""]
    (batch,) = source.batches(source.columns)
    assert batch.columns == {"text;more": ["Россия;x"], "label": ["1"]}
    assert source.notes == [], "nothing was detected"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("text\na, b\nc; d\n", ["text"]),
        ("text,label\na; b; c,1\nd; e; f,0\n", ["text", "label"]),
        ("text;label\na, b, c;1\nd, e, f;0\n", ["text", "label"]),
        ('"text, long";label\n"a ""b"", c";1\n', ["text, long", "label"]),
        ('text|label\n"a | b"|1\nc, d; e|0\n', ["text", "label"]),
        ("text\tlabel\na, b\t1\nc\t0\n", ["text", "label"]),
        ('"text","label"\n"two\nlines; here",1\n"b",0\n', ["text", "label"]),
        ("id,text;label\n1,a;0\n2,b,c;1\n3,d;1\n", ["id,text", "label"]),
    ],
)
def test_delimiters_are_detected(text: str, columns: list[str], tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text)
    source = open_sources([str(tmp_path / "r.csv")])[""]
    assert source.columns == columns
    assert sum(len(batch.positions) for batch in source.batches(columns[:1])) > 0
