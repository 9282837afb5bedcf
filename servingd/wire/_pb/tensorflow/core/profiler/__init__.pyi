# Made from protos/ by servingd.wire.compile_protos: do not edit.
# mypy: disable-error-code="metaclass, misc, type-arg"
