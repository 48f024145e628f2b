_base_ = './runtime.py'

visualizer = dict(type='FaceVisualizer')

default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_best='wider_face/hard', rule='greater')
)
