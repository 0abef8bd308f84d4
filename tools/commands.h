/* commands.h - the subcommands, one file each. */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

#include "options.h"

extern const struct command command_train;
extern const struct command command_quantize;
extern const struct command command_select;
extern const struct command command_finetune;
extern const struct command command_eval;
extern const struct command command_info;
extern const struct command command_export;
extern const struct command command_pack;
extern const struct command command_results;
extern const struct command command_report;
extern const struct command command_compare;
extern const struct command command_verify;
extern const struct command command_predict;
extern const struct command command_bench;
extern const struct command command_instability;

#endif
