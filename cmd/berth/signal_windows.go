package main

import (
	"os"
	"syscall"
)

// interruptions end a command in good order.
func interruptions() []os.Signal { return endings }

// endings are the signals by which a process is asked to end.
var endings = []os.Signal{os.Interrupt, syscall.SIGTERM}

// reaches reports whether a signal that has come to this process goes to the commands that it runs by
// itself: Ctrl-C, the only one here, does.
func reaches(os.Signal) bool { return true }
