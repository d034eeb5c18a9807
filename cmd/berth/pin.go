package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk"
)

func (a *app) pin() *cobra.Command {
	var lock string
	cmd := &cobra.Command{
		Use:   "pin",
		Short: "Keep the digests of images in a lock file",
	}
	cmd.PersistentFlags().StringVar(&lock, "lock", "berth.lock", "lock `FILE`")
	cmd.AddCommand(a.pinAdd(&lock), a.pinVerify(&lock))
	return cmd
}

func (a *app) pinAdd(lock *string) *cobra.Command {
	return &cobra.Command{
		Use:   "add REF...",
		Short: "Write what references name now into the lock file",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				changes, err := registry.Pin(cmd.Context(), *lock, args...)
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
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				drifts, err := registry.VerifyPins(cmd.Context(), *lock)
				if err != nil {
					return err
				}
				lines := []string{}
				for _, d := range drifts {
					lines = append(lines, fmt.Sprintf("%s: %s", d.Reference, d.Reason))
				}
				if err := a.print(drifts, lines); err != nil {
					return err
				}
				if len(drifts) > 0 {
					return errDrift
				}
				return nil
			})
		},
	}
}
