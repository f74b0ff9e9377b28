"""Record tests/data/sharding_parameters.tsv from Elastic-Job's own parser, so that the tests need no Java.

    python tests/oracles/record_sharding.py CLASSES:guava.jar

CLASSES is a directory with the class com.dangdang.ddframe.job.util.config.ShardingItemParameters of Elastic-Job 2.1.5,
compiled with Lombok, and its exception. Each line of the table is a text, with four hex digits a character, TAB, and
REFUSED or the items as "item:value", values in hex too.
"""

from __future__ import annotations

import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
TABLE = HERE.parent / "data" / "sharding_parameters.tsv"

GIVEN = [
    "0=a,1=b", "0=a, 1 = b ", "0=a,0=b", "0=a,5=x", "-1=x,0=a", "0=a,", "0=a,,,", ",0=a", "0=a,,1=b", ",", ",,", " ",
    "0=", "0= ", "0=a=", "0=a==", "0==a", "=a", "a=b", "0", "0:a", "+1=b", "01=b", "2147483647=x", "2147483648=x",
    "0=\u00a0a", "\u0663=arabic", "\uff11=wide", "\u4e00=one", "0=\u00e9\u4e16", "0\t=\ta\n", "1_0=a", "0x1=a", "1.0=a",
    "0=a b", "0=a;1=b", "{}", '{"0":"a"}', "- 1=a", "0=\x00", "\x000=a", "0=a,1", "=", "==", "0=a,=",
]  # fmt: skip


def questions() -> list[str]:
    dice = random.Random(1)
    found = list(GIVEN)
    found.extend("".join(dice.choices("0123=,,==ab +-\u00a0\t", k=dice.randint(1, 10))) for _ in range(600))
    for _ in range(200):
        pairs = (f"{dice.randint(-1, 6)}={dice.choice('abc')}" for _ in range(dice.randint(1, 5)))
        found.append(dice.choice([",", " ,", ", "]).join(pairs) + dice.choice(["", "", ",", "="]))
    return [text for text in dict.fromkeys(found) if text]


def in_hex(text: str) -> str:
    return "".join(f"{ord(letter):04x}" for letter in text)


def main(class_path: str) -> None:
    """Compile the recorder, ask the parser, and write the table."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(["javac", "-cp", class_path, "-d", out, str(HERE / "ShardingRecorder.java")], check=True)
        command = ["java", "-cp", f"{class_path}:{out}", "ShardingRecorder"]
        asked = "\n".join(map(in_hex, questions()))
        TABLE.write_text(subprocess.run(command, input=asked, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main(sys.argv[1])
