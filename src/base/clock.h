/* base/clock.h - time that passes. */
#ifndef METAMIX_BASE_CLOCK_H
#define METAMIX_BASE_CLOCK_H

/* Seconds of a clock that only goes forward. */
double mix__clock(void);

#endif
