package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
)

func (a *app) push() *cobra.Command {
	return &cobra.Command{
		Use:   "push SOURCE... REPO[:TAG][,TAG...]",
		Short: "Bring an image into the layout",
		Long: `Bring an image into the layout and point tags at it. SOURCE is one of

  oci:DIR[:NAME]            an OCI image layout directory
  oci-archive:FILE[:NAME]   a tar file that holds one

Several sources go into one repository, each with its own NAME as tag, if no tag is given.`,
		Example: `  berth push oci:out/image app/hello:v1
  berth push oci-archive:hello.tar app/hello:v1,latest`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := args[len(args)-1]
			sources, err := parseSources(args[:len(args)-1])
			if err != nil {
				return usageError{err}
			}
			if len(sources) > 1 {
				return usageError{errors.New("several sources cannot share one name; push them one by one")}
			}
			defer sources[0].Close()
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				bars := a.progress()
				pushed, err := registry.Push(cmd.Context(), sources[0], ref, &sdk.PushOptions{Progress: bars.event})
				bars.end()
				if err != nil {
					return err
				}
				return a.printPushed(ref, pushed)
			})
		},
	}
}

func parseSources(texts []string) (sources []source.Source, err error) {
	for _, text := range texts {
		src, err := source.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("source %w", err)
		}
		sources = append(sources, src)
	}
	return sources, nil
}

func (a *app) printPushed(ref string, pushed sdk.Pushed) error {
	if a.json {
		return printJSON(pushed)
	}
	fmt.Printf("%s@%s\n", ref, pushed.Descriptor.Digest)
	return nil
}

func (a *app) pull() *cobra.Command {
	return &cobra.Command{
		Use:   "pull REF DEST",
		Short: "Bring an image to another place",
		Long: `Bring an image to another place. REF is REPO[:TAG][@DIGEST] in the layout, or in a remote
registry where it begins with a host. DEST is oci:DIR[:NAME] or oci-archive:FILE[:NAME].`,
		Example: `  berth pull app/hello:v1 oci:out/copy:v1
  berth pull app/hello:v1 oci-archive:hello.tar`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := source.Parse(args[1]); err != nil {
				return usageError{fmt.Errorf("destination %w", err)}
			}
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				return a.pullTo(cmd, registry, args[0], args[1])
			})
		},
	}
}

func (a *app) pullTo(cmd *cobra.Command, registry *sdk.Registry, ref, dest string) error {
	if _, err := registry.Resolve(cmd.Context(), ref); err != nil {
		return err // before the destination is made
	}
	to, err := source.ParseDestination(dest)
	if err != nil {
		return err
	}
	bars := a.progress()
	pulled, err := registry.Pull(cmd.Context(), ref, to, &sdk.PushOptions{Progress: bars.event})
	bars.end()
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return a.printPushed(dest, pulled)
}

func (a *app) ls() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [REPO]",
		Short: "List the repositories of the layout, or the tags of one",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				names := registry.Repositories(cmd.Context(), "")
				if len(args) == 1 {
					names = registry.Tags(cmd.Context(), args[0])
				}
				all := []string{}
				for name, err := range names {
					if err != nil {
						return err
					}
					all = append(all, name)
				}
				return a.printLines(all)
			})
		},
	}
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
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				all, lines := []resolved{}, []string{}
				var errs []error
				for _, ref := range args {
					desc, err := registry.Resolve(cmd.Context(), ref)
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
