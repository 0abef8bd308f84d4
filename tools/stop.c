#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t wanted;

static void on_signal(int number)
{
    static const char text[] = "\nstopping after this step; once more ends at once\n";
    const int saved = errno;
    if (wanted) {
        /* Blocked until this handler returns, then the default action ends the process. */
        signal(number, SIG_DFL);
        raise(number);
    } else if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {
        /* Nobody to tell: the flag is what counts. */
    }
    wanted = 1;
    errno = saved;
}

void stop_catch(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool stop_wanted(void)
{
    return wanted;
}
