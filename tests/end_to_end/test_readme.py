"""The session that the README shows gives what it shows."""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.slow
def test_the_python_session_is_real():
    (session,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    examples = doctest.DocTestParser().get_doctest(session, {}, "README", str(README), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(examples)
    assert runner.summarize(verbose=False).failed == 0
