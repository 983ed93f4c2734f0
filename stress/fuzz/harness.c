/*
 * The program for libFuzzer: Python with the extension inside, and the player.
 *
 * The extension is part of the program, so that it is compiled with the
 * sanitizers and counters of the rest.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>

PyMODINIT_FUNC PyInit__remctl(void);

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t size);

static PyObject *play;

static void
fail(void)
{
    PyErr_Print();
    abort();
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyObject *player;

    (void) argc;
    (void) argv;
    if (PyImport_AppendInittab("_remctl", PyInit__remctl) < 0)
        abort();
    Py_InitializeEx(0);
    player = PyImport_ImportModule("stress.fuzz.player");
    if (player == NULL)
        fail();
    play = PyObject_GetAttrString(player, "play");
    Py_DECREF(player);
    if (play == NULL)
        fail();
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *octets, size_t size)
{
    PyObject *result;

    result = PyObject_CallFunction(play, "y#", octets, (Py_ssize_t) size);
    if (result == NULL)
        fail();
    Py_DECREF(result);
    return 0;
}
