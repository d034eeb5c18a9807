//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

// openCommand is the first argument that makes this program a build tool that opens a layout once, and tells how long
// that took: until sdk.Open returned, and until the first 200.
//
//	measure-open LAYOUT BERTH|in-process
const openCommand = "measure-open"

// The ways in which a layout is opened, by what is measured.
const (
	openCold      = "open cold"
	openAttach    = "open attach"
	openInProcess = "open in process"

	toAnswer = ", to the first 200" // behind one of them
)

func measureOpen(layout, program string) error {
	launcher := host.Binary(program)
	if program == "in-process" {
		launcher = embedded.InProcess()
	}
	ctx := context.Background()
	begin := time.Now()
	registry, err := sdk.Open(ctx, &sdk.Options{Layout: layout, Launcher: launcher, IdleTimeout: -1})
	opened := time.Since(begin)
	if err == nil {
		err = registry.Ping(ctx)
	}
	answered := time.Since(begin)
	if err != nil {
		return err
	}
	fmt.Println(opened.Seconds()*1000, answered.Seconds()*1000)
	return registry.Close()
}

// opens measures each way once, on a layout that nobody has opened before.
func (b *bench) opens(ctx context.Context, round string) error {
	berth := filepath.Join(b.dir, "bin", "berth")
	for what, program := range map[string]string{openCold: berth, openInProcess: "in-process"} {
		if err := b.open(ctx, what, filepath.Join(b.dir, "open"+round+program[len(program)-1:]), program); err != nil {
			return err
		}
	}
	layout := filepath.Join(b.dir, "shared"+round)
	held, err := sdk.Open(ctx, &sdk.Options{Layout: layout, Launcher: host.Binary(berth), IdleTimeout: -1})
	if err != nil {
		return err
	}
	defer held.Close()
	return b.open(ctx, openAttach, layout, berth)
}

// open runs a build tool that opens a layout.
func (b *bench) open(ctx context.Context, what, layout, program string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	said, err := exec.CommandContext(ctx, self, openCommand, layout, program).Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", what, err, said)
	}
	var opened, answered float64
	if _, err := fmt.Sscan(string(said), &opened, &answered); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	b.add(what, berth, opened)
	b.add(what+toAnswer, berth, answered)
	return nil
}
