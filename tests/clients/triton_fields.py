"""The fields of tritonclient's messages, with number and type: python triton_fields.py."""

from __future__ import annotations

import json
import sys

from tritonclient.grpc import service_pb2


def fields(message, found):
    found[message.full_name] = {
        field.name: [field.number, field.type, field.message_type and field.message_type.full_name]
        for field in message.fields
    }
    for nested in message.nested_types:
        fields(nested, found)
    return found


known = {}
for each in service_pb2.DESCRIPTOR.message_types_by_name.values():
    fields(each, known)
service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
known["methods"] = {
    m.name: [m.input_type.full_name, m.output_type.full_name] for m in service.methods
}
sys.stdout.write(json.dumps(known))
