_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)

# A checkpoint is written to a temporary file and renamed: a run that is killed can be resumed.
default_hooks = dict(checkpoint=dict(backend_args=dict(backend='atomic')))

# Stop at a loss of NaN; compare model, data and evaluator before the first step.
custom_hooks = [dict(type='CheckInvalidLossHook'), dict(type='ConsistencyHook')]
