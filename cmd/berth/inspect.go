package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk"
)

func (a *app) inspect() *cobra.Command {
	var opts sdk.InspectOptions
	var raw, config bool
	cmd := &cobra.Command{
		Use:   "inspect REF",
		Short: "Tell what an image is, without its layers",
		Long: `Tell what an image, an artifact or an index is, of any format, and fetch none of its layers. REF is
REPO[:TAG][@DIGEST] in the layout, or in a remote registry where it begins with a host. Without TAG and
DIGEST it is the tag latest if there is one, else the first tag.

Of an index, --platform selects the image to be told of. --json prints all that is known. With it come the
tags of the repository, the first 1000, unless the registry does not let them be listed. --raw and --config
write the bytes as they are stored, and nothing else. Schema 1 has no config.`,
		Example: `  berth inspect app/hello:v1
  berth inspect docker.io/library/alpine:3.20 --platform linux/arm64
  berth inspect app/hello:v1 --raw | sha256sum`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if raw && config {
				return usageError{errors.New("--raw and --config: choose one")}
			}
			return a.reading(cmd.Context(), args, func(images *sdk.Images) error {
				switch {
				case raw:
					return writeManifest(cmd.Context(), images, args[0], &opts)
				case config:
					return writeConfig(cmd.Context(), images, args[0], &opts)
				}
				report, err := images.Inspect(cmd.Context(), args[0], &opts)
				if err != nil {
					return err
				}
				return a.print(report, reportLines(report))
			})
		},
	}
	flags := cmd.Flags()
	flags.Var((*platformValue)(&opts.Platform), "platform", "of an index, the image for this `OS/ARCHITECTURE[/VARIANT]`")
	flags.BoolVar(&raw, "raw", false, "write the manifest, byte for byte")
	flags.BoolVar(&config, "config", false, "write the config, byte for byte")
	return cmd
}

func writeManifest(ctx context.Context, images *sdk.Images, ref string, opts *sdk.InspectOptions) error {
	found, err := images.Manifest(ctx, ref, opts)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(found.Raw)
	return err
}

func writeConfig(ctx context.Context, images *sdk.Images, ref string, opts *sdk.InspectOptions) error {
	config, err := images.Config(ctx, ref, opts)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(config)
	return err
}

// platformValue is a flag's value: a platform, as manifest.ParsePlatform reads it.
type platformValue string

func (p *platformValue) String() string { return string(*p) }

// Type is how the help calls it.
func (*platformValue) Type() string { return "platform" }

// Set reads it.
func (p *platformValue) Set(s string) error {
	*p = platformValue(s)
	_, err := manifest.ParsePlatform(s)
	return err
}

// sheet is a report for people: what each line is about, and what there is to tell of it.
type sheet struct{ lines []string }

// add tells several things of one kind, one in a line. What is empty is left out.
func (s *sheet) add(label string, values ...string) {
	for _, value := range values {
		if value == "" {
			continue
		}
		s.lines = append(s.lines, fmt.Sprintf("%-12s  %s", label, printable(value)))
		label = ""
	}
}

// printable takes out what could disturb a terminal: whoever made the image chose these texts.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// reportLines tells what people look for first; data has the rest.
func reportLines(r *manifest.Report) []string {
	var s sheet
	s.add("name", r.Name)
	s.add("tag", r.Tag)
	s.add("digest", string(r.Digest))
	s.add("type", r.MediaType)
	s.add("index", string(r.IndexDigest))
	s.add("artifact", r.ArtifactType)
	if r.Subject != nil {
		s.add("subject", string(r.Subject.Digest))
	}
	s.add("annotations", pairs(r.Annotations)...)
	s.addConfig(r)
	s.addParts(r)
	s.add("tags", tagLine(r.RepoTags))
	return s.lines
}

// addConfig tells what the config says.
func (s *sheet) addConfig(r *manifest.Report) {
	s.add("platform", platformOf(r))
	if r.Created != nil {
		s.add("created", r.Created.UTC().Format(time.RFC3339))
	}
	s.add("author", r.Author)
	s.add("docker", r.DockerVersion)
	s.add("labels", pairs(r.Labels)...)
	s.add("env", r.Env...)
	s.add("entrypoint", quoted(r.Entrypoint))
	s.add("cmd", quoted(r.Cmd))
	s.add("user", r.User)
	s.add("workdir", r.WorkingDir)
	s.add("stop signal", r.StopSignal)
	s.add("ports", strings.Join(r.ExposedPorts, ", "))
	s.add("volumes", strings.Join(r.Volumes, ", "))
}

// addParts tells what it consists of.
func (s *sheet) addParts(r *manifest.Report) {
	var layers, children []string
	for _, layer := range r.Layers {
		layers = append(layers, columns(short(layer.Digest), sizeIf(layer.Size), shorten(layer.Command)))
	}
	for _, child := range r.Manifests {
		what := child.Platform
		if what == "" {
			what = child.ArtifactType
		}
		children = append(children, columns(string(child.Digest), what, sizeIf(child.Size)))
	}
	s.add("layers", layers...)
	s.add("size", sizeIf(r.TotalSize))
	s.add("manifests", children...)
}

// platformOf is what the config says that the image is for.
func platformOf(r *manifest.Report) string {
	os := r.OS
	if r.OSVersion != "" {
		os += "(" + r.OSVersion + ")"
	}
	known := slices.DeleteFunc([]string{os, r.Architecture, r.Variant}, func(s string) bool { return s == "" })
	return strings.Join(known, "/")
}

// tagLine is one line of tags, however many there are.
func tagLine(tags []string) string {
	const most = 10
	switch n := len(tags); {
	case n >= sdk.MaxReportedTags:
		return fmt.Sprintf("%s and more: berth ls lists all", strings.Join(tags[:most], ", "))
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(tags[:most], ", "), n-most)
	}
	return strings.Join(tags, ", ")
}

// pairs are the entries of a map, in the order of their keys.
func pairs(m map[string]string) []string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		all = append(all, key+"="+m[key])
	}
	return all
}

// quoted tells words apart that have spaces in them.
func quoted(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return strings.Trim(fmt.Sprintf("%q", words), "[]")
}

// columns are the parts of a line that are not empty.
func columns(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "  ")
}

func sizeIf(n int64) string {
	if n <= 0 {
		return ""
	}
	return size(n)
}

// shorten leaves the beginning of a long text.
func shorten(s string) string {
	const most = 60
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}
