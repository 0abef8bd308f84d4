/*
 * train/evaluate.h - accuracy on the validation images, and batch norm statistics and activation
 * steps from training images.
 */
#ifndef METAMIX_TRAIN_EVALUATE_H
#define METAMIX_TRAIN_EVALUATE_H

#include "data/batches.h"
#include "metamix/run.h"
#include "train/train.h"

/* With the running statistics and the engine's modes as they stand. observer may be NULL. Errors
 * besides the parts': MIX_ESTOPPED. */
mix_status mix__evaluate(struct mix__engine *engine, struct mix__batches *validation,
                         const mix_observer *observer, mix_accuracy *accuracy) MIX_CHECKED;

/* Replaces the running statistics by the mean over the next n batches of what each batch norm
 * sees in training mode. The engine needs no backward pass. */
mix_status mix__restat(struct mix__engine *engine, struct mix__batches *batches, int n) MIX_CHECKED;

/* For batch norms that were put in without statistics (onnx.h): makes mean and variance of what
 * each one sees in evaluation, over the next n batches, its running statistics, and changes its
 * weight and bias so that the network's function stays what it was. The engine needs no
 * backward pass; its modes are as they stand. */
mix_status mix__recentre(struct mix__engine *engine, struct mix__batches *batches,
                         int n) MIX_CHECKED;

/* Copies a batch to the engine's input; rows behind a short batch are cleared. */
void mix__engine_feed(struct mix__engine *engine, const struct mix__batch *batch);

/* First activation steps from the first batch of an epoch; see mix__engine_calibrate(). */
mix_status mix__calibrate(struct mix__engine *engine, struct mix__batches *batches,
                          int epoch) MIX_CHECKED;

#endif
