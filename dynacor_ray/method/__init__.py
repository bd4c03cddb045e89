"""The method of the paper (Kim et al., CVPR 2024): pure functions on arrays and tensors, no Ray.

Each equation is one short function, and its docstring lists what differs from the paper. The table says where each
part of the paper stands and which test in `tests/unit/method/` checks it.

| Paper | What | Function | Test |
|---|---|---|---|
| §4.2 | which instances get a corrupted copy | `corruption.is_selected` | `test_corruption` |
| §4.2 | the label of a copy | `corruption.corrupted_label` | `test_corruption` |
| §4.2 | originals and copies together | `corruption.corrupt` | `test_corruption` |
| Eq. 12, 13, 14 | noise rate with copies | `corruption.expected_noise_rates` | `test_corruption` |
| §4.3 | logit margin | `dynamics.logit_margin` | `test_dynamics` |
| Eq. 1 | distinct sign dynamics | `dynamics.sign_patterns` | `test_dynamics` |
| Eq. 2 | weights of originals and copies | `dynamics.row_weights` | `test_dynamics` |
| Table 6 | loss | `dynamics.cross_entropy_loss` | `test_dynamics` |
| Table 6 | probability | `dynamics.given_label_probability` | `test_dynamics` |
| Table 6 | probability difference | `dynamics.probability_difference` | `test_dynamics` |
| Table 6 | alignment of pre-logits | `dynamics.alignment` | `test_dynamics` |
| Table 6 | directions for the alignment | `dynamics.first_eigenvectors` | `test_dynamics` |
| Table 6 | all signals of a batch | `signals.record_signals` | `test_signals` |
| Eq. 1 | windows of sign dynamics | `dynamics_encoder.sign_windows` | `test_dynamics_encoder` |
| §4.4 | a fresh dynamics encoder | `dynamics_encoder.initial_encoder_state` | `test_dynamics_encoder` |
| Eq. 3, 7 | cosine distance | `losses.cosine_distance` | `test_clustering` |
| Eq. 3 | distance of the released code | `losses.squared_euclidean_distance` | `test_clustering` |
| Eq. 3 | soft assignment | `losses.soft_assignment` | `test_clustering` |
| Eq. 4 | flag | `losses.flag` | `test_clustering` |
| Eq. 5 | target distribution | `losses.target_distribution` | `test_clustering` |
| Eq. 6 | clustering loss | `losses.clustering_loss` | `test_clustering` |
| Eq. 7 | alignment loss | `losses.alignment_loss` | `test_clustering` |
| Eq. 8 | total loss | `losses.total_loss` | `test_clustering` |
| Eq. 1, 8 | training of encoder and centroids | `clustering.fit` | `test_clustering` |
| Table 5 | options of the clustering | `clustering.preset` | `test_clustering` |
| §4.4 | order of rows in minibatches | `clustering.batch_order` | `test_clustering_reference` |
| Eq. 9 | validation metric | `selection.validation_metric` | `test_selection` |
| Table 3 | Davies-Bouldin index | `selection.davies_bouldin` | `test_selection` |
| Table 3 | choice of the epoch | `selection.choose_epoch` | `test_selection` |
"""
