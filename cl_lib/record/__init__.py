"""What a run leaves behind: one record, its schema, its text and the directory that holds it."""

from cl_lib.record.check import check_record, schema
from cl_lib.record.directory import claim, writing
from cl_lib.record.metric import Metric
from cl_lib.record.record import Record

__all__ = ["Metric", "Record", "check_record", "claim", "schema", "writing"]
