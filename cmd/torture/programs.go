package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/ocilayout"
)

// need names the programs that are not there.
func need(programs ...string) error {
	var missing []string
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("programs are missing: %s; install them", strings.Join(missing, ", "))
	}
	return nil
}

// inspect has skopeo read a tag in the directory, and compares what it reads.
func inspect(ctx context.Context, layout, name string, want digest.Digest) error {
	name = strings.TrimPrefix(name, ocilayout.DefaultRepository+":")
	raw, err := output(ctx, "skopeo", "inspect", "--raw", "oci:"+layout+":"+name)
	if err != nil {
		return err
	}
	if got := digest.FromString(raw); got != want {
		return fmt.Errorf("skopeo reads %s as %s, the store as %s", name, got, want)
	}
	return nil
}

// output runs a program and returns what it prints; an error has what it complains of.
func output(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	said := &tail{}
	cmd.Stderr = said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, said)
	}
	return string(out), nil
}
