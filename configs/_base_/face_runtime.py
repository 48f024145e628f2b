# mmdet's runtime with this package's registrations, drawn landmarks and the metric to watch.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)

visualizer = dict(type='FaceVisualizer')

default_hooks = dict(
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='wider_face/hard',
        rule='greater',
    )
)
