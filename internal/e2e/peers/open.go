//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// The ways in which a build tool opens a layout, by what is measured.
const (
	openCold      = "open cold"
	openAttach    = "open attach"
	openInProcess = "open in process"

	toAnswer = ", to the first 200" // behind one of them
)

// opens measures each way once, with a process of its own and on a layout that nobody has opened before.
func (b *bench) opens(ctx context.Context, round string) error {
	program := filepath.Join(b.dir, "bin", "berth")
	for what, launcher := range map[string]string{openCold: program, openInProcess: "in-process"} {
		if err := b.open(ctx, what, what+round, launcher); err != nil {
			return err
		}
	}
	return b.open(ctx, openAttach, openCold+round, program) // what the tool before has started
}

// open runs a build tool that opens a layout and leaves.
func (b *bench) open(ctx context.Context, what, layout, launcher string) error {
	said, err := exec.CommandContext(ctx, filepath.Join(b.dir, "bin", "buildtool"), "-time",
		"-layout", filepath.Join(b.dir, layout), "-launcher", launcher, "-idle-timeout", "1s").Output()
	var opened, answered float64
	if err == nil {
		_, err = fmt.Sscan(string(said), &opened, &answered)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", what, err, said)
	}
	b.add(what, berth, opened)
	b.add(what+toAnswer, berth, answered)
	return nil
}
