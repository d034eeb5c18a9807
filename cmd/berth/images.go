package main

import (
	"errors"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
)

func (a *app) pull() *cobra.Command {
	return &cobra.Command{
		Use:   "pull REF DEST",
		Short: "Bring an image to another place",
		Long: `Bring an image to another place. REF is REPO[:TAG][@DIGEST] in the layout, or in a remote
registry where it begins with a host. DEST is oci:DIR[:NAME] or oci-archive:FILE[:NAME].`,
		Example: `  berth pull app/hello:v1 oci:out/copy:v1
  berth pull app/hello:v1 oci-archive:hello.tar`,
		Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := source.Parse(args[1]); err != nil {
				return usageError{fmt.Errorf("destination %w", err)}
			}
			return a.reading(cmd.Context(), args[:1], func(images *sdk.Images) error {
				return a.pullTo(cmd, images, args[0], args[1])
			})
		},
	}
}

func (a *app) pullTo(cmd *cobra.Command, images *sdk.Images, ref, dest string) error {
	if _, err := images.Resolve(cmd.Context(), ref); err != nil {
		return err // before the destination is made
	}
	to, err := source.ParseDestination(dest)
	if err != nil {
		return err
	}
	bars := a.progress()
	pulled, err := images.Pull(cmd.Context(), ref, to, &sdk.PushOptions{Progress: bars.event})
	bars.end()
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return a.print(pulled, []string{fmt.Sprintf("%s@%s", dest, pulled.Descriptor.Digest)})
}

func (a *app) ls() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [REPO]",
		Short: "List the repositories of the layout, or the tags of one",
		Long: `List the repositories of the layout, or the tags of one: of one in a remote registry, where REPO
begins with a host.`,
		Example: `  berth ls
  berth ls app/hello`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.reading(cmd.Context(), args, func(images *sdk.Images) error {
					return a.printNames(images.Tags(cmd.Context(), args[0]))
				})
			}
			if err := a.mustExist(nil); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				return a.printNames(registry.Repositories(cmd.Context(), ""))
			})
		},
	}
}

func (a *app) printNames(names iter.Seq2[string, error]) error {
	all := []string{}
	for name, err := range names {
		if err != nil {
			return err
		}
		all = append(all, name)
	}
	return a.print(all, all)
}

// resolved is one line of berth resolve.
type resolved struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
}

func (a *app) resolve() *cobra.Command {
	return &cobra.Command{
		Use:   "resolve REF...",
		Short: "Print the digests that references name",
		Long: `Print the digests that references name. REF is REPO[:TAG][@DIGEST] in the layout, or in a remote
registry where it begins with a host. What could be resolved is printed though something else could not.`,
		Example: `  berth resolve app/hello:v1
  berth resolve docker.io/library/alpine:3.20`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reading(cmd.Context(), args, func(images *sdk.Images) error {
				all, lines := []resolved{}, []string{}
				var errs []error
				for _, ref := range args {
					desc, err := images.Resolve(cmd.Context(), ref)
					if err != nil {
						errs = append(errs, err)
						continue
					}
					all = append(all, resolved{ref, string(desc.Digest), desc.MediaType, desc.Size})
					lines = append(lines, string(desc.Digest)+"  "+ref)
				}
				return errors.Join(append(errs, a.print(all, lines))...)
			})
		},
	}
}
