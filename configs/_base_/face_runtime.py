# mmdet's runtime with this package's registrations, drawn landmarks and the metric to watch.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)

visualizer = dict(type='FaceVisualizer')

# Checkpoints that survive kills and full disks, exact --resume, a stop at the first loss that is
# not finite, and a count of images that cannot be read (docs/reliability.md). To turn one off:
#   --cfg-options default_hooks.checkpoint.type=CheckpointHook    (mmengine's own)
#   --cfg-options default_hooks.resume_state.type=mmengine.hooks.Hook    (which does nothing)
# and the latter for non_finite and bad_images too.
default_hooks = dict(
    checkpoint=dict(
        type='AtomicCheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='wider_face/hard',
        rule='greater',
    ),
    resume_state=dict(type='ResumeStateHook'),
    non_finite=dict(type='NonFiniteStopHook'),
    bad_images=dict(type='BadImageHook'),
)
