package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/source"
)

func (a *app) push() *cobra.Command {
	var platform string
	opts := sdk.PushOptions{}
	cmd := &cobra.Command{
		Use:   "push SOURCE... REPO[:TAG][,TAG...]",
		Short: "Bring images into the layout",
		Long: `Bring images into the layout and point tags at them. SOURCE is one of

  oci:DIR[:NAME]              an OCI image layout directory
  oci-archive:FILE[:NAME]     a tar file that holds one
  docker-archive:FILE[:NAME]  a tar file that docker save or podman save has written
  docker://HOST/REPO[:TAG]    an image of a remote registry

NAME may be left out where there is one image alone. Archives may be compressed, by gzip or zstd, and
may be pipes, like /dev/stdin. One source gets the tags that are given, or the tag latest. Several
sources go into one REPO, each with its own NAME as tag; all are looked at before the first is
brought, and --json prints a list of them.`,
		Example: `  berth push oci:out/image app/hello:v1
  berth push oci-archive:hello.tar app/hello:v1,latest
  docker save hello | berth push docker-archive:/dev/stdin app/hello
  berth push oci:out/image:v1 oci:out/image:v2 app/hello`,
		Args: arguments(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if opts.Platform, err = parsePlatform(platform); err != nil {
				return err
			}
			return a.pushArgs(cmd.Context(), args, opts)
		},
	}
	platformFlag(cmd, &platform)
	cmd.Flags().BoolVar(&opts.Link, "link", false, "keep SOURCE's own files by hard links: nobody may ever change them")
	return cmd
}

func (a *app) pushArgs(ctx context.Context, args []string, opts sdk.PushOptions) error {
	last := len(args) - 1
	remotes := sdk.NewImages(a.options())
	pushes, err := planPushes(remotes, args[:last], args[last])
	if err != nil {
		return usageError{err}
	}
	defer closeAll(pushes)
	if err := lookAt(ctx, pushes); err != nil {
		return err
	}
	if err := a.mayBeMade(); err != nil {
		return err
	}
	return a.with(ctx, func(registry *sdk.Registry) error {
		return a.pushAll(ctx, registry, pushes, opts)
	})
}

// onePush is an image that is to be brought, and the reference that it gets.
type onePush struct {
	from source.Source
	ref  string
}

// planPushes says which source gets which reference.
func planPushes(images *sdk.Images, sources []string, ref string) ([]onePush, error) {
	if err := checkTarget(ref); err != nil {
		return nil, err
	}
	if len(sources) > 1 && strings.ContainsAny(ref, ":,@") {
		return nil, fmt.Errorf("%q: several sources get their own names as tags; name the repository alone", ref)
	}
	var pushes []onePush
	taken := map[string]bool{}
	for _, text := range sources {
		from, err := images.ParseSource(text)
		if err != nil {
			return nil, fmt.Errorf("source %w", err)
		}
		name := nameIn(text)
		if len(sources) == 1 {
			return []onePush{{from, ref}}, nil
		}
		if name == "" {
			return nil, fmt.Errorf("source %q: it has no NAME, which is to be its tag; write %[1]s:NAME", text)
		}
		if err := berth.ValidateTag(name); err != nil {
			return nil, fmt.Errorf("source %q: its NAME is to be a tag of %s: %w", text, ref, err)
		}
		if taken[name] {
			return nil, fmt.Errorf("source %q: another one before it has the NAME %s too, and one alone can be %s:%[2]s; push them one by one", text, name, ref)
		}
		taken[name] = true
		pushes = append(pushes, onePush{from, ref + ":" + name})
	}
	return pushes, nil
}

// nameIn is the NAME of a source, or the tag of one in a remote registry.
func nameIn(text string) string {
	if remote, ok, _ := sdk.RemoteReference(text); ok {
		_, rest := pin.SplitHost(remote)
		ref, _ := berth.ParseReference(rest)
		return ref.Tag
	}
	_, _, name, _ := source.Split(text)
	return name
}

// checkTarget refuses what no push can set, before a layout is made for it.
func checkTarget(ref string) error {
	if sdk.CheckForm(ref) == nil && !strings.HasPrefix(ref, sdk.FormRegistry) {
		return fmt.Errorf("%q: it is a source, and what comes last is the reference that it gets", ref)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(ref, sdk.FormRegistry), ",")
	if host, rest := pin.SplitHost(first); host != "" {
		return fmt.Errorf("reference %q: %s is a host, and a push goes into the layout: push to %[3]s, then run berth sync --to %[2]s %[3]s", ref, host, rest)
	}
	return sdk.CheckTags(ref)
}

func closeAll(pushes []onePush) {
	for _, p := range pushes {
		p.from.Close()
	}
}

// lookAt makes sure that each source has its image, so that a slip of the finger is told before
// anything is begun.
func lookAt(ctx context.Context, pushes []onePush) error {
	var errs []error
	for _, p := range pushes {
		_, err := p.from.Root(ctx)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// pushAll brings one after the other. What was brought before one that fails is printed all the same.
func (a *app) pushAll(ctx context.Context, registry *sdk.Registry, pushes []onePush, opts sdk.PushOptions) error {
	all, lines := []sdk.Pushed{}, []string{}
	var failed error
	bars := a.progress()
	opts.Progress = bars.event
	for _, p := range pushes {
		pushed, err := registry.Push(ctx, p.from, p.ref, &opts)
		if err != nil {
			failed = err
			break
		}
		repository, _, _ := strings.Cut(strings.SplitN(p.ref, ",", 2)[0], ":")
		for _, tag := range pushed.Tags {
			lines = append(lines, fmt.Sprintf("%s:%s@%s", repository, tag, pushed.Descriptor.Digest))
		}
		all = append(all, pushed)
	}
	bars.end()
	switch {
	case len(pushes) > 1:
		return errors.Join(failed, a.print(all, lines))
	case failed != nil:
		return failed
	}
	return a.print(all[0], lines)
}
