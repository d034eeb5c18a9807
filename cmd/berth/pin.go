package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/pin"
)

func (a *app) pin() *cobra.Command {
	var lock string
	cmd := &cobra.Command{
		Use:   "pin",
		Short: "Keep the digests of images in a lock file",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
			}
			return cmd.Help()
		},
	}
	lock = "berth.lock"
	cmd.PersistentFlags().Var((*textValue)(&lock), "lock", "lock `FILE`")
	cmd.AddCommand(a.pinAdd(&lock), a.pinVerify(&lock))
	return cmd
}

func (a *app) pinAdd(lock *string) *cobra.Command {
	return &cobra.Command{
		Use:   "add REF...",
		Short: "Write what references name now into the lock file",
		Long: `Write what references name now into the lock file, which is made if it is not there. REF is REPO[:TAG]
in the layout, or in a remote registry where it begins with a host. What could be resolved is written
though something else could not.`,
		Example: `  berth pin add app/hello:v1 docker.io/library/alpine:3.20`,
		Args:    arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := pin.Load(*lock); err != nil {
				return err // before anything is begun
			}
			return a.reading(cmd.Context(), args, func(images *sdk.Images) error {
				changes, err := images.Pin(cmd.Context(), *lock, args...)
				lines := []string{}
				for _, c := range changes {
					lines = append(lines, fmt.Sprintf("%s  %s", c.New, c.Reference))
				}
				if changes != nil {
					err = errors.Join(err, a.print(changes, lines))
				}
				return err
			})
		},
	}
}

func (a *app) pinVerify(lock *string) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Compare the lock file with what its references name now",
		Long:  "Compare the lock file with what its references name now. Exits with 3 if one differs.",
		Args:  arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.readingLock(cmd.Context(), *lock, func(images *sdk.Images) error {
				drifts, err := images.VerifyPins(cmd.Context(), *lock)
				if err != nil && drifts == nil {
					return err
				}
				lines := []string{}
				for _, d := range drifts {
					lines = append(lines, driftLine(d))
				}
				err = errors.Join(err, a.print(append([]pin.Drift{}, drifts...), lines))
				if err == nil && len(drifts) > 0 {
					return errDrift
				}
				return err
			})
		},
	}
}

func driftLine(d pin.Drift) string {
	line := fmt.Sprintf("%s: %s", d.Reference, d.Reason)
	if d.Found != "" && d.Found != d.Pinned {
		line += fmt.Sprintf(": pinned %s, is now %s", d.Pinned, d.Found)
	}
	return line
}

// readingLock is reading, for the references that a lock file has.
func (a *app) readingLock(ctx context.Context, lock string, work func(*sdk.Images) error) error {
	file, err := pin.Load(lock)
	if err != nil {
		return err
	}
	var refs []string
	for _, p := range file.Pins() {
		refs = append(refs, p.Reference)
	}
	return a.reading(ctx, refs, work)
}
