package main

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/source"
)

func (a *app) pull() *cobra.Command {
	var f pullFlags
	cmd := &cobra.Command{
		Use:   "pull REF DEST | docker://REF...",
		Short: "Bring an image to another place, or images of remote registries into the layout",
		Long: `Bring an image to another place. REF is REPO[:TAG][@DIGEST] in the layout, or in a remote
registry where it begins with a host. DEST is one of

  oci:DIR[:NAME]              an OCI image layout directory
  oci-archive:FILE[:NAME]     a tar file that holds one
  docker-archive:FILE[:NAME]  a tar file that docker load and podman load take
  docker://HOST/REPO[:TAG]    a remote registry

Without NAME an image in a docker-archive has the name REF.

Where all arguments begin with docker://, all of them are brought into the layout, under the same names
without their hosts. They may be patterns, as those of berth sync: docker://HOST/app/**:v*. What the
layout has is not fetched again, and a download that was stopped goes on where it was.`,
		Example: `  berth pull app/hello:v1 oci:out/copy:v1
  berth pull app/hello:v1 docker-archive:hello.tar && docker load -i hello.tar
  berth pull --platform linux/arm64 app/hello:v1 oci-archive:hello.tar
  berth pull registry.example.com/app/hello:v1 docker://other.example.com/app/hello:v1
  berth pull docker://registry.example.com/team/base:v1 'docker://registry.example.com/team/app:>=1.2'
  berth pull --into mirror docker://registry.example.com/team/base@sha256:…`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.ContainsFunc(args, isNoRemote) {
				return a.pullInto(cmd, &f, args)
			}
			return a.pullOne(cmd, &f, args)
		},
	}
	f.define(cmd)
	a.limitFlags(cmd)
	return cmd
}

// pullOne brings one image to another place.
func (a *app) pullOne(cmd *cobra.Command, f *pullFlags, args []string) error {
	if err := f.forOne(args); err != nil {
		return usageError{err}
	}
	if err := sdk.CheckForm(args[1]); err != nil {
		return usageError{fmt.Errorf("destination %w", err)}
	}
	chosen, err := f.platform()
	if err != nil {
		return err
	}
	ref, _, err := sdk.RemoteReference(args[0]) // which DEST may be, and people write here too
	if err != nil {
		return usageError{fmt.Errorf("reference %w", err)}
	}
	return a.reading(cmd.Context(), []string{ref}, func(images *sdk.Images) error {
		return a.pullTo(cmd, images, ref, args[1], &sdk.PullOptions{Platform: chosen})
	})
}

// platformFlag lets one image of an index be chosen.
func platformFlag(cmd *cobra.Command, platform *string) {
	cmd.Flags().StringVar(platform, "platform", "", "of an index, bring the image for OS/ARCH[/VARIANT] alone")
}

// parsePlatform reads a flag. Empty is nil.
func parsePlatform(text string) (*v1.Platform, error) {
	if text == "" {
		return nil, nil
	}
	platform, err := manifest.ParsePlatform(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("flag --platform: %w", err)}
	}
	return &platform, nil
}

func (a *app) pullTo(cmd *cobra.Command, images *sdk.Images, ref, dest string, opts *sdk.PullOptions) error {
	if _, err := images.Resolve(cmd.Context(), ref); err != nil {
		return err // before the destination is made
	}
	to, err := images.ParseDestination(named(dest, ref))
	if err != nil {
		return err
	}
	bars := a.progress()
	opts.Progress = bars.event
	pulled, err := images.Pull(cmd.Context(), ref, to, opts)
	bars.end()
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return a.print(pulled, []string{fmt.Sprintf("%s@%s", dest, pulled.Descriptor.Digest)})
}

// named gives an image in an archive of Docker its own name where none was chosen: without one, docker load would
// leave it without a name. What has a digest alone has no name.
func named(dest, ref string) string {
	form, _, name, err := source.Split(dest)
	if err != nil || form != source.FormDocker || name != "" {
		return dest
	}
	host, rest := pin.SplitHost(ref)
	parsed, err := berth.ParseReference(rest)
	if err != nil || (parsed.Tag == "" && parsed.Digest != "") {
		return dest
	}
	parsed = parsed.WithDefaultTag()
	return dest + ":" + path.Join(host, parsed.Repository+":"+parsed.Tag)
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
