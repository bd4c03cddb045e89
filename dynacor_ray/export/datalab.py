"""A finished run as cleanlab's Datalab, to combine its other audits and its report with our label issues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, expected_got

if TYPE_CHECKING:
    from cleanlab import Datalab


def as_datalab(issues: pa.Table, class_names: list[str]) -> Datalab:
    """A Datalab over the rows in the order of their ids, whose `get_issues("label")` are those of the run.

    The lab's data have the columns instance_id, uri and given_label. More audits can be added by
    `find_issues(features=...)` with features in that order.

    Args:
        issues: columns of `schema.issues_schema()`.
        class_names: names of the classes.

    Raises:
        ConfigError: Datalab is not installed.
    """
    try:
        from cleanlab import Datalab
        from cleanlab.datalab.internal.issue_manager import IssueManager
        from datasets import ClassLabel, Dataset, Features, Value
    except ImportError as error:
        remedy = "pip install 'dynacor-ray[cleanlab]'"
        raise ConfigError(expected_got("cleanlab's Datalab to be installed", f"'{error}'", remedy)) from error

    class LabelIssues(IssueManager):  # type: ignore[misc]
        """Brings what was found elsewhere into the lab, as its own audit of labels would."""

        issue_name = "label"

        def find_issues(self, table: pa.Table) -> None:
            frame = table.to_pandas()
            names = {schema.IS_LABEL_ISSUE: f"is_{self.issue_name}_issue", schema.LABEL_QUALITY: self.issue_score_key}
            self.issues = frame[list(names)].rename(columns=names)
            self.summary = self.make_summary(float(1 - frame[schema.IS_LABEL_ISSUE].mean()))
            self.info = self.collect_info(table)

        def collect_info(self, table: pa.Table) -> dict[str, list[int]]:
            return {name: table[name].to_pylist() for name in (schema.GIVEN_LABEL, schema.PREDICTED_LABEL)}

    table = issues.sort_by(schema.INSTANCE_ID)
    kinds = {schema.INSTANCE_ID: Value("int64"), schema.URI: Value("string")}
    features = Features(kinds | {schema.GIVEN_LABEL: ClassLabel(names=class_names)})
    columns = {name: table[name].to_pylist() for name in features}
    lab = Datalab(Dataset.from_dict(columns, features=features), label_name=schema.GIVEN_LABEL)
    manager = LabelIssues(lab)
    manager.find_issues(table)
    lab.data_issues.collect_issues_from_issue_manager(manager)
    return lab
