/* metamix.h - the whole public interface. Read in this order. */
#ifndef METAMIX_METAMIX_H
#define METAMIX_METAMIX_H

#include "metamix/status.h"
#include "metamix/context.h"
#include "metamix/graph.h"
#include "metamix/zoo.h"
#include "metamix/onnx.h"
#include "metamix/weights.h"
#include "metamix/data.h"
#include "metamix/settings.h"
#include "metamix/run.h"
#include "metamix/export.h"
#include "metamix/runtime.h"
#include "metamix/trace.h"
#include "metamix/report.h"

#endif
