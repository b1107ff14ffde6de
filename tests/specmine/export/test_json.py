import json

import toy

from specmine.document import document
from specmine.pipeline.stages import export_run


def test_the_file_is_the_document(tmp_path):
    run = toy.run(tmp_path)
    (path,) = export_run(run, "json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(document(run.spec)))
