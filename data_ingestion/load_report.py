"""What the loader tells of a load."""

from collections import Counter

from data_ingestion.csv_reader import SEPARATORS
from data_ingestion.loading import Reading
from data_ingestion.schema import Contract, count_of, join_names
from data_ingestion.tally import MAX_NAMED
from data_ingestion.validation import Finding, find_more_missing

MAX_LISTED = 10


def describe_load(contract: Contract, source: str, reading: Reading, notes: list[str], is_table: bool) -> list[str]:
    """Return the lines that tell what was read, all kinds of faults and all findings among them.

    Parameters
    ----------
    contract, source : what the rows were read by, and where they stand
    reading : what was found
    notes : what else there is to say
    is_table : whether the source is no text
    """
    tally = reading.tally
    separator = SEPARATORS.get(contract.separator, repr(contract.separator))
    form = "" if is_table else f", separated by {separator}"
    lines = [
        f"{source}: {count_of(tally.rows, 'row')}, {count_of(len(contract.columns), 'column')}{form}",
        f'  target "{contract.target}": {describe_target(contract)}',
    ]
    kinds = Counter(column.kind for column in contract.features.values())
    lines.append(
        f"  {count_of(len(contract.features), 'feature')}: "
        + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    )
    ignored = [(name, contract.columns[name].reason) for name in contract.columns_with_role("ignored")]
    lines += [f'  ignored "{name}": {reason or "so says data/schema.yaml"}' for name, reason in ignored[:MAX_LISTED]]
    if len(ignored) > MAX_LISTED:
        lines.append(f"  ignored {len(ignored) - MAX_LISTED} columns more, see data/schema.yaml")
    counts = (("target missing", tally.without_target), ("at fault", tally.faults))
    lines += [f"  set aside, {reason}: {count_of(count, 'row')}" for reason, count in counts if count]
    faults = tally.describe_faults(source)
    lines += [f"    {fault}" for fault in faults[:MAX_NAMED]]
    if len(faults) > MAX_NAMED:
        lines.append(f"    {len(faults) - MAX_NAMED:,} faults of other kinds, see data/rejected.csv")
    findings = describe_findings(contract, source, reading)
    if findings:
        findings[-1] += "; --infer takes what is new up into data/schema.yaml"
    return lines + [f"  note: {note}" for note in [*notes, *findings]]


def describe_findings(contract: Contract, source: str, reading: Reading) -> list[str]:
    """Return what the contract did not expect and lets pass."""
    return [finding.describe(source) for finding in [*reading.findings, *find_missing(contract, reading)]]


def find_missing(contract: Contract, reading: Reading) -> list[Finding]:
    """Return the columns in which many more values are missing than the contract knows."""
    found = []
    for name, column in contract.columns.items():
        facts = reading.profile.facts.get(name)
        if facts is not None and (finding := find_more_missing(facts.rows, facts.missing, name, column)) is not None:
            found.append(finding)
    return found


def describe_target(contract: Contract) -> str:
    """Return the task and the target's values in words."""
    column = contract.columns[contract.target]
    if not contract.is_classification:
        return f"regression, {column.kind}s from {column.min} to {column.max}"
    if column.categories is None:
        return f"{contract.task} classification, {column.kind}s from {column.min} to {column.max}"
    return f"{contract.task} classification, {len(column.categories)} classes: {join_names(column.categories)}"
