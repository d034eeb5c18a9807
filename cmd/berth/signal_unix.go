//go:build unix

package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// interruptions end a command in good order. A terminal that goes away is one, but for whom nohup has started.
func interruptions() []os.Signal {
	all := []os.Signal{os.Interrupt, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) {
		all = append(all, unix.SIGHUP)
	}
	return all
}

// endings are the signals by which a process is asked to end.
var endings = []os.Signal{os.Interrupt, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}

// reaches reports whether a signal that has come to this process goes to the commands that it runs by
// itself: Ctrl-C and Ctrl-\ do, in the terminal in whose foreground they are.
func reaches(s os.Signal) bool {
	if s != os.Interrupt && s != unix.SIGQUIT {
		return false
	}
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer terminal.Close()
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
