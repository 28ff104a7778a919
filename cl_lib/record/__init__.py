"""The record of a run: its content, schema, summary and directory."""

from cl_lib.record.check import check_record, schema
from cl_lib.record.directory import claim, writing
from cl_lib.record.metric import Metric
from cl_lib.record.record import Record

__all__ = ["Metric", "Record", "check_record", "claim", "schema", "writing"]
